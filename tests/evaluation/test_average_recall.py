"""Average recall of open-ended detections, against figures by hand."""

from functools import partial

import numpy as np
import pytest
from pycocotools import mask as rle

from atss_ext.evaluation.average_recall import Truth, average_recall
from atss_ext.vlsam.detections import Detections

SIZE = (100, 100)


def mask_of(box):
    mask = np.zeros(SIZE, np.uint8, order='F')
    x1, y1, x2, y2 = np.round(box).astype(int)
    mask[y1:y2, x1:x2] = 1
    return mask


def truth(*objects):
    boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
    masks = np.array([mask_of(box) for box in boxes], bool).reshape(-1, *SIZE)
    return Truth(boxes, masks, [name for _, name in objects])


def detections(*objects, masks=None):
    boxes = np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4)
    return Detections(
        size=SIZE,
        boxes=boxes,
        scores=np.array([score for _, _, score in objects], np.float32),
        names=[name for _, name, _ in objects],
        run_lengths=[rle.encode(mask_of(box)) for box in (boxes if masks is None else masks)],
    )


@pytest.fixture(params=['fast', 'reference'])
def recall(request):
    return partial(average_recall, backend=request.param)


CAT, DOG = ([0, 0, 100, 50], 'cat'), ([0, 60, 50, 100], 'dog')


def test_recall_by_hand(recall):
    # The cat is met with an IoU of 0.82: found at 7 of the 10 thresholds. The dog with 0.6: at 3 of them.
    found = detections(([0, 0, 100, 41], 'x', 0.2), ([0, 60, 30, 100], 'y', 0.9))
    score = recall([truth(CAT, DOG)], [found])
    assert score.mAR == pytest.approx((0.7 + 0.3) / 2)
    assert score.AR50 == 1
    assert score.AR75 == 0.5


def test_objects_of_all_images_count_alike(recall):
    found = [detections(([0, 0, 100, 50], 'cat', 0.5)), detections(), detections((DOG[0], 'dog', 0.1))]
    truths = [truth(CAT), truth(CAT, DOG), truth()]
    assert recall(truths, found) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_with_names_a_find_of_another_name_is_none(recall):
    # By name: cats 1 of 2, dogs 0 of 1. A name that no object has finds nothing.
    found = detections((CAT[0], 'cat', 0.5), (DOG[0], 'cat', 0.9), (DOG[0], 'horse', 0.9))
    truths = [truth(CAT, DOG), truth(CAT)]
    score = recall(truths, [found, detections()], names=True)
    assert score == pytest.approx((0.25, 0.25, 0.25))
    assert recall(truths, [found, detections()]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_masks_are_compared_where_they_are_asked_for(recall):
    # The box is the cat's, the mask covers but its left part: an IoU of 0.6.
    found = detections((CAT[0], 'cat', 0.5), masks=[np.array([0, 0, 60, 50])])
    assert recall([truth(CAT)], [found]).mAR == 1
    assert recall([truth(CAT)], [found], 'segm') == pytest.approx((0.3, 1, 0))


def test_only_the_best_detections_of_an_image_count(recall):
    found = detections((CAT[0], 'cat', 0.5), ([60, 60, 70, 70], 'cat', 0.9), ([80, 60, 90, 70], 'cat', 0.8))
    assert recall([truth(CAT)], [found], max_detections=2).mAR == 0
    assert recall([truth(CAT)], [found], max_detections=3).mAR == 1


def test_nothing_found_is_nought(recall):
    assert recall([truth(CAT)], [detections()]) == (0, 0, 0)


@pytest.mark.parametrize(
    ('truths', 'found', 'options', 'message'),
    [
        ([truth(CAT)], [], {}, '1 images with objects need as many detections, but got 0'),
        ([truth()], [detections()], {}, 'there is no object in these images'),
        ([truth(CAT)], [detections()], {'iou_type': 'box'}, "must be 'bbox' or 'segm', but is 'box'"),
    ],
)
def test_what_cannot_be_scored_is_refused(recall, truths, found, options, message):
    with pytest.raises(ValueError, match=message):
        recall(truths, found, **options)
