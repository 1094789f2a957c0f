"""Images for open-ended detection: no categories, no annotations, nothing the model could learn from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from atss_ext.datasets.checks import DataError, check_images, read_coco
from atss_ext.registry import DATASETS, TRANSFORMS
from atss_ext.vlsam.images import list_images, read_image
from atss_ext.vlsam.protocols import VlsamError

# Where LVIS and COCO say that an image lies; the rest is its path below the folder of all images.
_COCO_URL = 'http://images.cocodataset.org/'


@DATASETS.register_module()
class ImageList(BaseDataset):
    """The images of a COCO, LVIS or CODA annotation file, or of a folder; of annotations it reads nothing.

    ``ann_file`` is a JSON with ``images`` (``id`` and ``file_name``, or LVIS's ``coco_url``), or is left
    away: then all images below ``data_prefix['img']`` are taken, in natural order, numbered from 1.
    Metrics read the annotations themselves, so that the model never sees a category.

    Raises:
        DataError: the file or an image is missing, or there is no image at all.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry an image: ``img_id``, ``img_path`` and ``file_name``, below the images' folder."""
        folder = Path(self.data_prefix.get('img') or self.data_root or '.')
        if not self.ann_file:
            if not folder.is_dir():
                raise DataError(f'image folder {folder} does not exist; correct data_root and data_prefix')
            found = list_images(folder, recursive=True)
            names = [path.relative_to(folder).as_posix() for path in found]
            ids: list[Any] = list(range(1, len(found) + 1))
        else:
            images = read_coco(self.ann_file)['images']
            names = [_file_name(image, self.ann_file) for image in images]
            check_images(names, folder, self.ann_file)
            ids = [image['id'] for image in images]
        if not names:
            raise DataError(f'{self.ann_file or folder} holds no image; name another one')
        return [
            {'img_id': key, 'img_path': str(folder / name), 'file_name': name}
            for key, name in zip(ids, names, strict=True)
        ]


def _file_name(image: Mapping[str, Any], ann_file: str) -> str:
    name = image.get('file_name') or str(image.get('coco_url', '')).removeprefix(_COCO_URL)
    if not name or 'id' not in image:
        raise DataError(f"an image of {ann_file} has no id, or neither 'file_name' nor 'coco_url': {image}")
    return name


@TRANSFORMS.register_module()
class ReadUpright(BaseTransform):
    """Reads an image as ``tools/vlsam.py`` does: upright by its EXIF, alpha on white, within bounds.

    An image that cannot be read does not end the run: ``vlsam_error`` of its sample says why, and a blank
    picture stands in its place.

    Args:
        max_side: a larger image is reduced to this longest side, pixels.

    Required keys: ``img_path``. Added: ``img`` (uint8 BGR [H, W, 3]), ``img_shape``, ``ori_shape`` (of the
    upright image at its own size), ``scale_factor`` and, where it failed, ``vlsam_error``.
    """

    def __init__(self, max_side: int = 4096) -> None:
        self.max_side = max_side

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Read ``img_path``."""
        try:
            loaded = read_image(results['img_path'], max_side=self.max_side)
            pixels, size = loaded.pixels, loaded.size
        except VlsamError as error:
            results['vlsam_error'] = str(error)
            pixels, size = np.zeros((8, 8, 3), np.uint8), (8, 8)
        results['img'] = np.ascontiguousarray(pixels[..., ::-1])
        results['img_shape'] = pixels.shape[:2]
        results['ori_shape'] = size
        results['scale_factor'] = (pixels.shape[1] / size[1], pixels.shape[0] / size[0])
        return results
