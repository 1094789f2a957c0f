"""What the small models are shown of a scene: the whole of it, its mirror image, or an enlarged part.

Parts are half as high and wide, as the corner views of the multi-scale ensemble are, but lie anywhere.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# An object is named where at least this share of what the scene shows of it lies in the part.
_NAMED = 0.5
# A patch belongs to an object from the first share on, and to none below the second.
_OBJECT, _EMPTY = 0.5, 0.15
UNSURE = 255


class SceneView(NamedTuple):
    """A picture with M named objects.

    Attributes:
        image: uint8 [H, W, 3].
        owners: uint8 [H, W], the named object that each pixel shows, from 1; 0 none, 255 one unnamed.
        categories: uint8 [M], from 1.
        boxes: float32 xyxy [M, 4], pixels, of the visible parts.
    """

    image: NDArray[np.uint8]
    owners: NDArray[np.uint8]
    categories: NDArray[np.uint8]
    boxes: NDArray[np.float32]


def whole_view(
    image: NDArray[np.uint8], owners: NDArray[np.uint8], categories: NDArray[np.uint8], mirror: bool = False
) -> SceneView:
    """The scene as it is, or its mirror image.

    Args:
        image: uint8 [H, W, 3].
        owners: uint8 [H, W], from 1.
        categories: uint8 [M]; trailing zeros are no objects.
        mirror: left for right.
    """
    if mirror:
        image, owners = image[:, ::-1], owners[:, ::-1]
    categories = categories[categories > 0]
    return SceneView(image, owners, categories, _tight_boxes(owners, len(categories)))


def part_view(view: SceneView, x: int, y: int) -> SceneView:
    """A part of a view, half as high and wide, enlarged to its size as the processor enlarges corner views.

    Args:
        view: H and W even.
        x: left side of the part, pixels, 0 to W / 2.
        y: upper side of the part, pixels, 0 to H / 2.
    """
    height, width = view.owners.shape
    rows, columns = slice(y, y + height // 2), slice(x, x + width // 2)
    part = view.owners[rows, columns]
    numbers = np.arange(1, len(view.categories) + 1)[:, None, None]
    shown = (part == numbers).sum(axis=(1, 2))
    named = shown >= _NAMED * (view.owners == numbers).sum(axis=(1, 2))
    renamed = np.full(256, UNSURE, np.uint8)
    renamed[0] = 0
    renamed[1 : len(named) + 1][named] = np.arange(1, named.sum() + 1)
    small = Image.fromarray(np.ascontiguousarray(view.image[rows, columns]))
    image = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    owners = renamed[part].repeat(2, axis=0).repeat(2, axis=1)
    return SceneView(image, owners, view.categories[named], _tight_boxes(owners, int(named.sum())))


def patch_owners(view: SceneView, patch: int) -> NDArray[np.uint8]:
    """Which object each ``patch`` x ``patch`` pixels of a view belong to.

    Returns:
        uint8 [H / patch, W / patch]: an object, from 1; 0 none, 255 unsure. Every object owns a patch at
        least, unless another has a greater share of it.
    """
    rows, columns = (side // patch for side in view.owners.shape)
    cells = view.owners.reshape(rows, patch, columns, patch)

    def shares(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        return (cells == numbers[:, None, None, None, None]).mean(axis=(2, 4))

    owners = np.zeros((rows, columns), np.uint8)
    owners[shares(np.array([UNSURE]))[0] >= _EMPTY] = UNSURE
    if not len(view.categories):
        return owners
    own = shares(np.arange(1, len(view.categories) + 1))  # [M, R, C]
    best, leaders = own.max(axis=0), own.argmax(axis=0)
    peaks = own >= own.max(axis=(1, 2), keepdims=True)
    owners[best >= _EMPTY] = UNSURE
    sure = (best >= _OBJECT) | np.take_along_axis(peaks, leaders[None], axis=0)[0]
    owners[sure] = leaders[sure] + 1
    return owners


def _tight_boxes(owners: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    boxes = np.zeros((count, 4), np.float32)
    for index in range(count):
        rows, columns = np.nonzero(owners == index + 1)
        boxes[index] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return boxes
