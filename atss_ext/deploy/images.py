"""The pictures on which an export is compared with PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from atss_ext.datasets.leaves import iter_leaves
from atss_ext.datasets.shapes import ShapesSpec, draw_scene
from atss_ext.errors import UserError

Size = tuple[int, int]
SIDES = (32, 4096)  # what a graph of any size takes
_SEED = 20240612


def check_size(size: Size) -> Size:
    """Refuse a size no graph is made for.

    Raises:
        UserError: a side is out of range.
    """
    if not all(SIDES[0] <= side <= SIDES[1] for side in size):
        raise UserError(
            f'--size {size[0]} {size[1]}: height and width have to be {SIDES[0]} to {SIDES[1]} pixels'
        )
    return size


def size_of(cfg: Config) -> Size:
    """(height, width) to which the config's test pipeline resizes.

    Raises:
        UserError: it does not say.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    for leaf in iter_leaves(dataset) if dataset else ():
        for step in leaf.get('pipeline') or ():
            scale = step.get('scale') if step.get('type') in ('Resize', 'mmdet.Resize') else None
            if isinstance(scale, list | tuple) and len(scale) == 2:
                return check_size((int(scale[1]), int(scale[0])))
    raise UserError(
        f'config {cfg.filename} resizes to no fixed scale; name the size with --size HEIGHT WIDTH'
    )


def check_images(files: Sequence[str], size: Size, dynamic: bool, count: int = 3) -> list[NDArray[np.uint8]]:
    """BGR pictures of the size, and of others where the graph takes any.

    Args:
        files: pictures of the user's; without, scenes of the shapes world are drawn.
        size: (height, width).
        dynamic: whether other sizes count: one a third smaller and upright, one of odd sides.
        count: of scenes a size.

    Raises:
        UserError: a file is no picture.
    """
    sizes = [size]
    if dynamic:
        sizes += [_within((size[1] * 2 // 3, size[0] * 2 // 3)), _within((size[0] + 37, size[1] + 11))]
    pictures = [_read(file) for file in files]
    if pictures:
        return [_resized(picture, one) for one in sizes for picture in pictures]
    return [_scene(one, number) for one in sizes for number in range(count)]


def _within(size: Size) -> Size:
    height, width = (min(max(side, SIDES[0]), SIDES[1]) for side in size)
    return height, width


def _read(file: str) -> NDArray[np.uint8]:
    picture = cv2.imread(file) if Path(file).is_file() else None
    if picture is None:
        raise UserError(f'--images {file}: it does not exist or is no picture; correct the path')
    return np.asarray(picture, np.uint8)


def _resized(picture: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, size[::-1]), np.uint8)


def _scene(size: Size, number: int) -> NDArray[np.uint8]:
    """One of the shapes world, drawn as the demo draws it and enlarged where the size is greater."""
    scale = max(1.0, max(size) / 256)
    height, width = (max(16, round(side / scale)) for side in size)
    spec = ShapesSpec(width=width, height=height, max_size=min(150, width, height), empty_fraction=0.0)
    return _resized(draw_scene(spec, _SEED, number).image[:, :, ::-1], size)
