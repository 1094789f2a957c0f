"""CODA, the road corner cases, as an mmdet dataset: the base benchmark and CODA2022.

Source: Li et al., *CODA: A Real-World Road Corner Case Dataset* (ECCV 2022), and the documentation at
https://coda-dataset.github.io.
"""

from typing import Any, ClassVar, Literal, get_args

from mmdet.datasets import CocoDataset
from mmengine.fileio import get_local_path

from atss_ext.datasets.annotation_checks.coda import (
    CODA_BASE_COMMON,
    CODA_CLASSES,
    CODA_COMMON,
    is_base_file,
    is_corner_case,
)
from atss_ext.datasets.checks import DataError, read_coco
from atss_ext.registry import DATASETS

__all__ = ['CODA_BASE_COMMON', 'CODA_CLASSES', 'CODA_COMMON', 'CodaDataset']

Mode = Literal['all', 'common', 'novel', 'agnostic']
Layout = Literal['base', '2022']

OBJECT = ('object',)
"""The one class of the modes 'novel' and 'agnostic'."""


@DATASETS.register_module()
class CodaDataset(CocoDataset):
    """An annotation file of CODA.

    A label is the place of its category's name in ``metainfo['classes']``, whatever the file's ids and order,
    and whether or not the file has all of them: the base benchmark has 34 of the 43 categories, CODA2022's
    validation set 29. (``CocoDataset`` counts the file's categories, and so shifts labels where one is
    absent. ``CocoMetric`` does likewise: it fits where the file's categories are the classes in their order.)

    Every image keeps ``period``, ``weather`` (None where the file does not say) and ``file_name``, and has
    ``corner_cases``, one bool an instance as loaded; each instance has its own ``corner_case``. Name them in
    the ``meta_keys`` of ``PackDetInputs`` to see them in a sample.

    Where an annotation has no ``corner_case``, it is one if its class is none of CODA2022's seven common
    ones: corner cases are novel classes, or novel instances of common classes, and the second kind cannot
    be told from a name. In the base benchmark's file every annotation is one: nothing else was labelled.

    Args:
        ann_file: see ``BaseDataset``.
        metainfo: see ``BaseDataset``; ``classes`` replaces those of the mode, such as
            :data:`CODA_BASE_COMMON`.
        mode: 'all': CODA2022's 43 classes. 'common': its seven. 'agnostic': every annotation, as one class
            'object'. 'novel': those of no common class, as one class 'object'; the base
            benchmark's common classes are the five of :data:`CODA_BASE_COMMON`.
        corner_only: keep corner cases alone.
        layout: 'base' or '2022', what a missing ``corner_case`` means; None tells by the name of the
            annotation file, which is corner_case.json in the base benchmark.
        data_prefix: see ``BaseDataset``; None is CODA's own, ``dict(img='images/')``.
        kwargs: see ``BaseDetDataset``.

    Raises:
        ValueError: unknown mode or layout.
        DataError: the file cannot be used, has none of the classes, or a ``corner_case`` that is no flag.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': CODA_CLASSES, 'palette': None}

    def __init__(
        self,
        ann_file: str = '',
        metainfo: dict[str, Any] | None = None,
        *,
        mode: Mode = 'all',
        corner_only: bool = False,
        layout: Layout | None = None,
        data_prefix: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f'mode must be one of {", ".join(get_args(Mode))}, but is {mode!r}.')
        if layout is not None and layout not in get_args(Layout):
            raise ValueError(f"layout must be 'base', '2022' or None, but is {layout!r}.")
        self.mode, self.corner_only, self.layout = mode, corner_only, layout
        classes = {'all': CODA_CLASSES, 'common': CODA_COMMON, 'novel': OBJECT, 'agnostic': OBJECT}[mode]
        prefix = {'img': 'images/'} if data_prefix is None else data_prefix
        super().__init__(ann_file, {'classes': classes, **(metainfo or {})}, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the file: an entry an image, in its order."""
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            content = read_coco(path)
        names = {category['id']: category['name'] for category in content.get('categories', [])}
        self.cat2label = self._labels(names)
        self.cat_ids = list(self.cat2label)
        self.cat_img_map: dict[Any, list[Any]] = {category: [] for category in self.cat_ids}
        of_image: dict[Any, list[dict[str, Any]]] = {image['id']: [] for image in content['images']}
        for annotation in content.get('annotations', []):
            if annotation['image_id'] not in of_image:
                raise DataError(
                    f'annotation {annotation["id"]} of {self.ann_file} names image {annotation["image_id"]}, '
                    'which the file does not have; tools/datasets/check_annotations.py lists such faults'
                )
            corner = self._is_corner_case(annotation, names)
            if annotation['category_id'] in self.cat2label and (corner or not self.corner_only):
                of_image[annotation['image_id']].append({**annotation, 'corner_case': corner})
                self.cat_img_map[annotation['category_id']].append(annotation['image_id'])
        return [
            self.parse_data_info(
                {'raw_img_info': {**image, 'img_id': image['id']}, 'raw_ann_info': of_image[image['id']]}
            )
            for image in content['images']
        ]

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Bring one image into mmdet's form; ``CocoDataset``'s rules say which boxes are dropped.

        Args:
            raw_data_info: ``raw_img_info``, and ``raw_ann_info`` with a ``corner_case`` in each.
        """
        image = raw_data_info['raw_img_info']
        data: dict[str, Any] = super().parse_data_info({'raw_img_info': image, 'raw_ann_info': []})
        for annotation in raw_data_info['raw_ann_info']:
            # One at a time: an instance does not say which annotation it comes from.
            parsed = super().parse_data_info({'raw_img_info': image, 'raw_ann_info': [annotation]})
            for instance in parsed['instances']:
                data['instances'].append({**instance, 'corner_case': annotation['corner_case']})
        data['corner_cases'] = [instance['corner_case'] for instance in data['instances']]
        for key in ('period', 'weather', 'file_name'):
            data[key] = image.get(key)
        return data

    def _labels(self, names: dict[Any, str]) -> dict[Any, int]:
        """Return the label of each category id that is wanted."""
        place = {name: label for label, name in enumerate(self.metainfo['classes'])}
        common = CODA_BASE_COMMON if self._is_base() else CODA_COMMON
        labels = {
            'all': {key: place[name] for key, name in names.items() if name in place},
            'common': {key: place[name] for key, name in names.items() if name in place},
            'novel': {key: 0 for key, name in names.items() if name not in common},
            'agnostic': dict.fromkeys(names, 0),
        }[self.mode]
        if not labels:
            raise DataError(
                f"{self.ann_file} has none of the classes of mode='{self.mode}', but "
                f'{", ".join(sorted(names.values())[:10]) or "no category"}; a class-agnostic file takes '
                "mode='agnostic'"
            )
        return labels

    def _is_corner_case(self, annotation: dict[str, Any], names: dict[Any, str]) -> bool:
        name = names.get(annotation['category_id'])
        return is_corner_case(annotation, name, self._is_base(), self.ann_file)

    def _is_base(self) -> bool:
        return is_base_file(self.ann_file, self.layout)
