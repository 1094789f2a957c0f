"""Objects keep their numbers through a video."""

import numpy as np
import pytest
from pycocotools import mask as rle

from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.tracking import Tracker


def frame(*objects: tuple[str, int, int]) -> Detections:
    """Objects (name, left, top) of 20 x 20 pixels in an image of 100 x 100."""
    masks, boxes = [], []
    for _, left, top in objects:
        mask = np.zeros((100, 100), np.uint8, order='F')
        mask[top : top + 20, left : left + 20] = 1
        masks.append(rle.encode(mask))
        boxes.append([left, top, left + 20, top + 20])
    return Detections(
        (100, 100),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.ones(len(objects), np.float32),
        [name for name, _, _ in objects],
        masks,
    )


def test_numbers_follow_the_objects_in_whatever_order_they_come():
    tracker = Tracker()
    assert tracker.update(frame(('dog', 0, 0), ('dog', 50, 50))) == [1, 2]
    assert tracker.update(frame(('dog', 54, 50), ('dog', 4, 0))) == [2, 1]
    assert tracker.update(frame(('dog', 58, 52), ('cat', 80, 0), ('dog', 8, 0))) == [2, 3, 1]


def test_another_name_at_the_same_place_is_another_object():
    tracker = Tracker()
    assert tracker.update(frame(('dog', 0, 0))) == [1]
    assert tracker.update(frame(('cat', 0, 0))) == [2]


def test_the_matching_is_the_best_of_all_together():
    """Greedily the first object of the new frame would take number 1 and leave 2 without a match.

    Overlaps: the new one at 10 has IoU 1/3 with both old ones, the one at 0 has 1 with the old one at 0.
    """
    tracker = Tracker()
    tracker.update(frame(('dog', 0, 0), ('dog', 20, 0)))
    assert tracker.update(frame(('dog', 10, 0), ('dog', 0, 0))) == [2, 1]


def test_a_missing_object_is_remembered_for_a_while():
    tracker = Tracker(patience=1)
    assert tracker.update(frame(('dog', 0, 0))) == [1]
    assert tracker.update(frame()) == []
    assert tracker.update(frame(('dog', 2, 0))) == [1]
    tracker.update(frame())
    tracker.update(frame())
    assert tracker.update(frame(('dog', 2, 0))) == [2]


def test_too_little_overlap_is_another_object():
    # 20 x 20 moved by 10: IoU 200 / 600.
    for threshold, expected in ((0.33, 1), (0.34, 2)):
        tracker = Tracker(iou_threshold=threshold)
        tracker.update(frame(('dog', 0, 0)))
        assert tracker.update(frame(('dog', 10, 0))) == [expected]


@pytest.mark.parametrize(('settings', 'words'), [({'iou_threshold': 0}, '0'), ({'patience': -1}, '-1')])
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Tracker(**settings)
