"""The curves of LVIS by hotcoco, equal to those of :mod:`atss_ext.evaluation.lvis.figures`.

hotcoco matches and accumulates what is left after our own limits, in its LVIS mode. Its own limit an image is
taken off: it would take the place of ``max_dets``, and fixed AP has none.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.evaluation.backend import fast_library
from atss_ext.evaluation.grid import AREAS, THRESHOLDS
from atss_ext.evaluation.lvis.detections import ImageDetections
from atss_ext.evaluation.lvis.matching import RECALLS, LvisCurves
from atss_ext.evaluation.lvis.truth import LvisTruth, contains

# hotcoco's columns have no `ignore`. An object beyond all ranges of areas is ignored in each of them, which
# is the same.
_BEYOND = 2 * float(AREAS.max())


def fast_curves(truth: LvisTruth, rows: Sequence[ImageDetections]) -> LvisCurves:
    """Precision and recall of every category; ``rows`` hold detections that count only."""
    if not truth.names:
        shape = (len(AREAS), len(THRESHOLDS), 0)
        return LvisCurves(np.zeros((*shape, len(RECALLS))), np.zeros(shape))
    # Of equal scores the first image's count first, and hotcoco keeps the order it is given.
    ordered = sorted((row for row in rows if len(row.scores)), key=lambda row: row.image)
    iou_type = 'segm' if ordered and isinstance(ordered[0].regions, list) else 'bbox'
    library: Any = fast_library()
    images = np.repeat([row.image for row in ordered], [len(row.scores) for row in ordered]).astype(np.int64)
    categories = np.concatenate([np.zeros(0, np.int64), *(row.categories for row in ordered)])
    goals = _goals(library, truth, images * len(truth.names) + categories, iou_type)
    found = _found(goals, truth, ordered, (images, categories), iou_type)
    # Otherwise LVISeval would take the best 300 of an image when it is made, whatever its parameters say.
    scorer = library.LVISeval(goals, found.cap_detections_per_image(None), iou_type)
    scorer.params.max_dets = [max(len(images), 1)]
    scorer.params.area_rng = AREAS.tolist()
    scorer.params.iou_thrs = THRESHOLDS.tolist()
    scorer.params.rec_thrs = RECALLS.tolist()
    scorer.evaluate()
    scorer.accumulate()
    result = scorer.eval  # each look makes new arrays
    precision, recall = (np.asarray(result[name])[..., 0] for name in ('precision', 'recall'))
    return LvisCurves(precision.transpose(3, 0, 2, 1), recall.transpose(2, 0, 1))


def _goals(library: Any, truth: LvisTruth, asked: NDArray[np.int64], iou_type: str) -> Any:
    """The annotations; ``asked`` are the pairs of the detections: masks of other pairs are not made."""
    objects = truth.objects
    masks = {}
    if iou_type == 'segm':
        compared = contains(objects.pairs, np.unique(asked)).tolist()
        masks['segmentation'] = [
            objects.mask(place) if wanted else _nothing(objects.sizes[place])
            for place, wanted in enumerate(compared)
        ]
    count = len(truth.names)
    return library.COCO.from_arrays(
        _images(truth),
        [
            {'id': row + 1, 'name': str(row), 'frequency': 'rcf'[group]}
            for row, group in enumerate(truth.frequencies.tolist())
        ],
        objects.pairs // count + 1,
        objects.pairs % count + 1,
        objects.boxes,
        ids=np.arange(1, len(objects) + 1),
        area=np.where(objects.ignore, _BEYOND, objects.areas),
        iscrowd=np.zeros(len(objects), np.int64),
        **masks,
    )


def _images(truth: LvisTruth) -> list[dict[str, Any]]:
    """All images with their lists."""
    images: list[dict[str, Any]] = [
        {'id': row + 1, 'height': height, 'width': width, 'neg_category_ids': [],
         'not_exhaustive_category_ids': []}
        for row, (height, width) in enumerate(map(truth.image_size, truth.image_rows))
    ]  # fmt: skip
    negative = truth.searched[~truth.has_objects(truth.searched)]
    for key, pairs in (('neg_category_ids', negative), ('not_exhaustive_category_ids', truth.partial)):
        for pair in pairs.tolist():
            row, category = divmod(pair, len(truth.names))
            images[row][key].append(category + 1)
    return images


def _found(
    goals: Any,
    truth: LvisTruth,
    ordered: Sequence[ImageDetections],
    columns: tuple[NDArray[np.int64], NDArray[np.int64]],
    iou_type: str,
) -> Any:
    """The detections; ``columns`` are rows of their images and categories."""
    images, categories = columns
    table = np.zeros((len(images), 7))
    table[:, 0], table[:, 6] = images + 1, categories + 1
    table[:, 5] = np.concatenate([np.zeros(0), *(row.scores for row in ordered)])
    if iou_type == 'bbox':
        table[:, 1:5] = np.concatenate([np.zeros((0, 4)), *(row.regions for row in ordered)])
        return goals.load_res(table)
    sizes = [truth.image_size(identity) for identity in truth.image_rows]
    masks = [mask or _nothing(sizes[row.image]) for row in ordered for mask in row.regions]
    found = goals.load_res(table, segmentation=masks)
    # Masks that meet no object were let go of; their areas are what says which range they are in.
    areas = np.concatenate([row.areas for row in ordered])
    found.update_anns(ids=np.arange(1, len(images) + 1), area=areas)
    return found


def _nothing(size: tuple[int, int]) -> dict[str, Any]:
    """An empty mask, in the place of one that is compared with nothing."""
    return {'size': list(size), 'counts': [size[0] * size[1]]}
