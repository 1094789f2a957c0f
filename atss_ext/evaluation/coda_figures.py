"""CODA's official figures of detections given as COCO results.

Sources: Li et al., *CODA: A Real-World Road Corner Case Dataset* (ECCV 2022), for the base benchmark; the
challenge of the workshop SSLAD at ECCV 2022 for CODA2022's.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from pycocotools.cocoeval import COCOeval

from atss_ext.datasets.annotation_checks.coda import (
    CODA_AGNOSTIC,
    CODA_BASE_COMMON,
    CODA_COMMON,
    is_base_file,
    is_corner_case,
)
from atss_ext.datasets.checks import DataError, read_coco
from atss_ext.evaluation.coco_scores import at_threshold, coco_scores, mean_of

Layout = Literal['base', '2022']
Entry = dict[str, Any]


class CodaTruth(NamedTuple):
    """The objects of an annotation file.

    Attributes:
        images: as in the file.
        objects: as in the file, with ``name`` and ``corner_case`` (bool) in each.
        layout: 'base' or '2022'.
        named: False for the official class-agnostic files, whose objects have no names.
    """

    images: list[Entry]
    objects: list[Entry]
    layout: Layout
    named: bool

    @property
    def common(self) -> tuple[str, ...]:
        """The names of the benchmark's common classes."""
        return CODA_BASE_COMMON if self.layout == 'base' else CODA_COMMON


def read_coda(ann_file: str, layout: Layout | None = None) -> CodaTruth:
    """Read an annotation file.

    Args:
        ann_file: of the base benchmark or of CODA2022.
        layout: which of both; None tells by the file's name, which is corner_case.json in the base benchmark.

    Raises:
        DataError: the file cannot be used, or has an annotation of an image or a category it does not have.
    """
    base = is_base_file(ann_file, layout)
    content = read_coco(ann_file)
    images = {image['id'] for image in content['images']}
    names = {category['id']: category['name'] for category in content.get('categories', [])}
    objects = []
    for entry in content.get('annotations', []):
        if entry['image_id'] not in images or entry['category_id'] not in names:
            raise DataError(
                f'annotation {entry.get("id")} of {ann_file} is of image {entry["image_id"]} and category '
                f'{entry["category_id"]}, one of which the file does not have; '
                'tools/datasets/check_annotations.py lists such faults'
            )
        name = names[entry['category_id']]
        objects.append({**entry, 'name': name, 'corner_case': is_corner_case(entry, name, base)})
    return CodaTruth(
        content['images'], objects, 'base' if base else '2022', set(names.values()) != {CODA_AGNOSTIC}
    )


def coda_figures(truth: CodaTruth, detections: Sequence[Entry], iou_type: str = 'bbox') -> dict[str, float]:
    """Score all detections of a file's images together.

    The base benchmark has ``mAR`` (over IoU 0.5 to 0.95), ``AR50`` and ``AR75`` at 100 detections an image,
    and ``AR1`` and ``AR10`` at 1 and 10, each of CORNER (all corner cases, names do not count), COMMON (the
    mean over the common classes; detections an image and class) and NOVEL (objects of other classes, names do
    not count). CODA2022 has ``AP_common``, ``AP_agnostic``, ``AR_agnostic``, ``AR_agnostic_corner`` and
    their ``Sum``.

    Where names do not count, all detections compete for the places of an image: for NOVEL as well, whatever
    they are called.

    Args:
        truth: the file.
        detections: COCO results with ``image_id``, ``name``, ``bbox``, ``score``, and ``segmentation`` for
            masks; of equal scores the earlier one comes first.
        iou_type: 'bbox' or 'segm'.

    Returns:
        the figures, in [0, 1]: 0 where nothing was found, -1 where there is nothing to find (``Sum`` leaves
        that out). Files without names have no COMMON, NOVEL, ``AP_common`` and ``Sum``.
    """

    def scores(wanted: Callable[[Entry], bool]) -> COCOeval:
        objects = [{**entry, 'category_id': 1} for entry in truth.objects if wanted(entry)]
        found = [{**entry, 'category_id': 1} for entry in detections]
        return coco_scores(truth.images, objects, found, iou_type)

    corner = scores(lambda entry: entry['corner_case'])
    common = _common(truth, detections, iou_type)
    if truth.layout == 'base':
        splits = {'CORNER': corner}
        if truth.named:
            novel = scores(lambda entry: entry['name'] not in truth.common)
            splits |= {'COMMON': common, 'NOVEL': novel}
        recalls = {split: _recalls(scorer) for split, scorer in splits.items()}
        return {f'{split}_{key}': value for split, found in recalls.items() for key, value in found.items()}
    agnostic = scores(lambda entry: True)
    figures = {'AP_common': _precision(common)} if truth.named else {}
    figures['AP_agnostic'] = _precision(agnostic)
    figures['AR_agnostic'] = _recalls(agnostic)['mAR']
    figures['AR_agnostic_corner'] = _recalls(corner)['mAR']
    if truth.named:
        figures['Sum'] = sum(max(value, 0.0) for value in figures.values())
    return figures


def _common(truth: CodaTruth, detections: Sequence[Entry], iou_type: str) -> COCOeval:
    """Score the common classes by their names."""
    ids = {name: number for number, name in enumerate(truth.common, 1)}
    objects, found = (
        [{**entry, 'category_id': ids[entry['name']]} for entry in entries if entry['name'] in ids]
        for entries in (truth.objects, detections)
    )
    return coco_scores(truth.images, objects, found, iou_type)


def _recalls(scorer: COCOeval) -> dict[str, float]:
    recall = scorer.eval['recall'][:, :, 0]  # [T, K, D], D: 1, 10, 100 detections
    parts = {
        'mAR': recall[..., 2],
        'AR50': recall[at_threshold(scorer, 0.5), :, 2],
        'AR75': recall[at_threshold(scorer, 0.75), :, 2],
        'AR1': recall[..., 0],
        'AR10': recall[..., 1],
    }
    return {name: mean_of(part) for name, part in parts.items()}


def _precision(scorer: COCOeval) -> float:
    return mean_of(scorer.eval['precision'][..., 0, 2])
