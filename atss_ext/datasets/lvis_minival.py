"""LVIS v1 (train, val, minival) as an mmdet dataset without lvis-api.

mmdet's ``LVISV1Dataset`` reads its file with the package ``lvis``, which has not followed NumPy for years.
"""

from typing import Any, ClassVar

from mmdet.datasets import CocoDataset, LVISV1Dataset
from mmdet.datasets.api_wrappers import COCO

from atss_ext.datasets.annotation_checks.images import COCO_URL
from atss_ext.datasets.annotation_checks.lvis import LISTS
from atss_ext.datasets.checks import DataError
from atss_ext.registry import DATASETS


@DATASETS.register_module()
class LvisDataset(LVISV1Dataset):
    """An annotation file of LVIS v1: 1,203 classes, of which each image was searched for a few.

    Images lie below ``data_prefix['img']`` at the path of their ``coco_url``, such as
    ``val2017/000000000139.jpg``: LVIS's validation set is spread over COCO's two folders. Every image keeps
    ``neg_category_ids`` and ``not_exhaustive_category_ids``, the file's category ids.

    Raises:
        DataError: the file's categories are not the classes, in their order; mmdet would number them wrongly.
    """

    READER: ClassVar[type[COCO]] = COCO
    """What parses the annotation file."""

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the file: an entry an image, in its order."""
        return CocoDataset.load_data_list(self)

    def COCOAPI(self, ann_file: str) -> COCO:
        """Read the annotation file, compare its categories with the classes, and place its images."""
        coco = self.READER(ann_file)
        self.prepare(coco.dataset)
        return coco

    def prepare(self, content: dict[str, Any]) -> None:
        """Compare the categories of a parsed file with the classes, and place its images.

        Args:
            content: the file; ``file_name`` of its images is set to the path in ``coco_url``.

        Raises:
            DataError: the categories are not the classes, in their order.
        """
        wanted = list(self.metainfo['classes'])
        found = [category.get('name') for category in content.get('categories', [])]
        if [name for name in found if name in set(wanted)] != wanted:
            lost = [name for name in wanted if name not in set(found)]
            problem = 'has its categories in another order'
            if lost:
                problem = f"has no category '{lost[0]}'"
            if len(lost) > 1:
                problem += f' ({len(lost)} of the {len(wanted)} classes are not among its {len(found)})'
            raise DataError(
                f"{self.ann_file} {problem}; set metainfo=dict(classes=(...)) to the file's names"
            )
        for image in content['images']:
            if isinstance(image, dict) and image.get('coco_url'):
                image['file_name'] = image['coco_url'].removeprefix(COCO_URL)

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Bring one image into mmdet's form, with its federated lists."""
        data: dict[str, Any] = super().parse_data_info(raw_data_info)
        for key in LISTS:
            data[key] = raw_data_info['raw_img_info'].get(key, [])
        return data
