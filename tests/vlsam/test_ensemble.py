"""Views cover the image, questions ask, and the suppression is greedy NMS whatever the order."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from atss_ext.vlsam import ensemble
from atss_ext.vlsam.ensemble import (
    DEFAULT_QUESTIONS,
    MergeOptions,
    View,
    merge,
    place,
    views,
    write_questions,
)
from atss_ext.vlsam.protocols import Answer

IMAGE = np.zeros((4, 4, 3), np.uint8)


def test_views_of_the_paper():
    assert views(480, 640) == [
        ((0, 0, 640, 480), 'whole'),
        ((0, 0, 320, 240), 'top left'),
        ((320, 0, 640, 240), 'top right'),
        ((0, 240, 320, 480), 'bottom left'),
        ((320, 240, 640, 480), 'bottom right'),
    ]
    assert views(480, 640, corners=False) == [((0, 0, 640, 480), 'whole')]


@pytest.mark.parametrize(('height', 'width'), [(33, 47), (100, 33), (63, 64), (2, 2), (2, 5)])
def test_corners_cover_every_pixel_and_are_equal(height, width):
    found = views(height, width, min_side=1)
    assert len(found) == 5
    covered = np.zeros((height, width), int)
    for view in found[1:]:
        x1, y1, x2, y2 = view.box
        assert (x2 - x1, y2 - y1) == (-(-width // 2), -(-height // 2))
        covered[y1:y2, x1:x2] += 1
    assert covered.min() == 1
    # Only the middle row and column of odd sides are seen twice.
    assert (covered > 1).sum() == (height % 2) * width + (width % 2) * height - (height % 2) * (width % 2)


@pytest.mark.parametrize(
    ('height', 'width', 'min_side', 'count'),
    [
        (32, 32, 16, 5),
        (31, 32, 16, 5),
        (30, 32, 16, 1),
        (32, 30, 16, 1),
        (1, 1, 1, 1),
        (1, 9, 1, 1),
        (64, 64, 33, 1),
    ],
)
def test_small_corners_are_left_out(height, width, min_side, count):
    assert len(views(height, width, min_side=min_side)) == count


def test_no_pixels_no_views():
    for size in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match=f'{size[0]} x {size[1]}'):
            views(*size)


def test_place():
    view = View((30, 20, 60, 40), 'bottom right')
    boxes = np.array([[0, 0, 10, 5], [1.5, 2.5, 3, 4]], np.float32)
    assert place(boxes, view).tolist() == [[30, 20, 40, 25], [31.5, 22.5, 33, 24]]
    assert boxes[0].tolist() == [0, 0, 10, 5]
    points = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    assert place(points, view).tolist() == [[[31, 22]], [[30, 20]]]
    assert place(points, view).dtype == torch.float32
    assert place(np.zeros((0, 4)), view).shape == (0, 4)
    with pytest.raises(ValueError, match=r'\(2, 3\)'):
        place(np.zeros((2, 3)), view)


def test_default_questions():
    assert len(DEFAULT_QUESTIONS) == len({question.casefold() for question in DEFAULT_QUESTIONS}) == 10
    assert all(question == question.strip() and question[-1] in '.?' for question in DEFAULT_QUESTIONS)


class Writer:
    """A VLM that writes what it is told to."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.calls: list[tuple] = []

    def answer(self, images, questions, seeds):
        self.calls.append((images, questions, seeds))
        return [Answer(self.text, [(0, len(self.text))], [0], None)]

    def read(self, answer):
        raise AssertionError('nothing is read again')


def test_questions_are_read_from_lines_and_filled_up():
    vlm = Writer(
        'Sure! Here are ten questions:\n\n'
        '1. What do you see in the image?\n'
        '2) List all the objects.\n'
        '- **Name every item you can find.**\n'
        '"Which things are there?"\n'
        'Q5: Can you enumerate the objects?\n'
        '6. LIST ALL THE OBJECTS!\n'
        f'7. List all objects in this image, separated by commas.\n'
        '8. I hope these help.\n'
        f'9. Describe {"every " * 100}object.\n'
    )
    found = write_questions(vlm, IMAGE, count=10, seed=3)
    own = [
        'What do you see in the image?',
        'List all the objects.',
        'Name every item you can find.',
        'Which things are there?',
        'Can you enumerate the objects?',
        'List all objects in this image, separated by commas.',
    ]
    assert found == own + list(DEFAULT_QUESTIONS[1:5])
    ((images, questions, seeds),) = vlm.calls
    assert images == [IMAGE]
    assert seeds == [3]
    assert '10' in questions[0]
    assert write_questions(vlm, IMAGE, count=2) == own[:2]


def test_a_question_that_was_cut_off_is_none():
    class Hurried(Writer):
        def answer(self, images, questions, seeds):
            return [answer._replace(finished=False) for answer in super().answer(images, questions, seeds)]

    found = write_questions(Hurried('What is here?\nList all the ob'), IMAGE, count=2)
    assert found == ['What is here?', DEFAULT_QUESTIONS[0]]


@pytest.mark.parametrize('text', ['', 'dog, cat, tree', '\n\n\n', '!!! 1. 2. 3.', 'x' * 100_000])
def test_a_vlm_that_writes_no_questions(text):
    assert write_questions(Writer(text), IMAGE) == list(DEFAULT_QUESTIONS)
    assert write_questions(Writer(text), IMAGE, count=12) == list(DEFAULT_QUESTIONS)
    with pytest.raises(ValueError, match='0'):
        write_questions(Writer(text), IMAGE, count=0)


def iou_matrix(boxes: np.ndarray) -> np.ndarray:
    """IoU of every pair, pixel by pixel."""
    masks = np.zeros((len(boxes), 40, 40), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    return mask_ious(masks)


def mask_ious(masks: np.ndarray) -> np.ndarray:
    flat = masks.reshape(len(masks), masks[0].size if len(masks) else 0).astype(int)
    shared = flat @ flat.T
    area = flat.sum(1)
    return shared / np.maximum(area[:, None] + area - shared, 1)


def brute_force(overlap, keys, names, threshold: float, agnostic: bool) -> list[int]:
    """Greedy NMS by the book: every pair, best first."""
    kept: list[int] = []
    for index in sorted(range(len(keys)), key=lambda i: keys[i]):
        if not any(
            overlap[index, better] > threshold and (agnostic or names[index] == names[better])
            for better in kept
        ):
            kept.append(index)
    return kept


@st.composite
def proposals(draw):
    """Integer boxes with frequent ties in everything, names and blocky masks within the boxes."""
    count = draw(st.integers(0, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    corners = rng.integers(0, 5, (count, 2)) * 4
    boxes = np.concatenate([corners, corners + rng.integers(1, 5, (count, 2)) * 5], 1).astype(np.float32)
    scores = rng.integers(0, 4, count) / 4
    names = [('dog', 'cat', 'big dog')[i] for i in rng.integers(0, 3, count)]
    masks = np.zeros((count, 40, 40), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
        mask[y1 : y1 + 2, x1 : x1 + rng.integers(0, 6)] = False
    return boxes, scores, names, masks


def encode(masks: np.ndarray) -> list[dict]:
    return [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


OPTIONS = st.builds(
    MergeOptions,
    iou_threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    by=st.sampled_from(['box', 'mask']),
    class_agnostic=st.booleans(),
    max_detections=st.sampled_from([None, 1, 3]),
)


@settings(max_examples=300, deadline=None)
@given(proposals(), OPTIONS, st.randoms(use_true_random=False))
def test_merge_against_brute_force_in_any_order(case, options, random):
    boxes, scores, names, masks = case
    run_lengths = encode(masks)
    keys = [(-scores[i], *boxes[i].tolist(), names[i], run_lengths[i]['counts']) for i in range(len(scores))]
    overlap = iou_matrix(boxes) if options.by == 'box' else mask_ious(masks)
    expected = brute_force(overlap, keys, names, options.iou_threshold, options.class_agnostic)
    expected = expected[: options.max_detections]
    found = merge(boxes, scores, names, run_lengths, options)
    assert found.dtype == np.int64
    assert [keys[i] for i in found] == [keys[i] for i in expected]
    order = list(range(len(scores)))
    random.shuffle(order)
    shuffled = merge(
        torch.from_numpy(boxes[order]),
        torch.from_numpy(scores[order]),
        [names[i] for i in order],
        [run_lengths[i] for i in order],
        options,
    )
    assert [keys[order[i]] for i in shuffled] == [keys[i] for i in expected]


def test_merge_in_every_order_of_ties():
    """Equal scores in a chain of overlaps: who comes first decides what is left."""
    boxes = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10], [6, 0, 16, 10]], np.float32)
    names = ['b', 'a', 'c', 'a']
    options = MergeOptions(iou_threshold=0.5)
    outcomes = set()
    for order in itertools.permutations(range(4)):
        index = list(order)
        kept = merge(boxes[index], np.full(4, 0.5), [names[i] for i in index], options=options)
        outcomes.add(tuple((names[index[i]], boxes[index[i], 0]) for i in kept))
    assert outcomes == {(('b', 0.0), ('a', 6.0))}


def test_names_count_on_demand():
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    names, scores = ['man', 'person', 'man'], [0.5, 0.9, 0.7]
    assert merge(boxes, scores, names).tolist() == [1]
    assert merge(boxes, scores, names, options=MergeOptions(class_agnostic=False)).tolist() == [1, 2]


def test_masks_tell_apart_what_boxes_do_not():
    """Two triangles of one square."""
    lower = np.tril(np.ones((20, 20), bool), -1)
    masks = encode(np.stack([lower, lower.T, lower]))
    boxes = np.array([[0, 1, 19, 20], [1, 0, 20, 19], [0, 1, 19, 20]], np.float32)
    scores, names = [0.9, 0.8, 0.7], ['a', 'b', 'c']
    assert merge(boxes, scores, names, masks).tolist() == [0]
    assert merge(boxes, scores, names, masks, MergeOptions(by='mask')).tolist() == [0, 1]
    texts = [{'size': mask['size'], 'counts': mask['counts'].decode()} for mask in masks]
    assert merge(boxes, scores, names, texts, MergeOptions(by='mask')).tolist() == [0, 1]


def bar(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((1, 20), bool)
    mask[0, start:stop] = True
    return mask


@pytest.mark.parametrize('by', ['box', 'mask'])
@pytest.mark.parametrize('ends', [False, True])
def test_an_overlap_of_just_the_threshold_is_kept(by, ends):
    """Masks of 9 pixels that share 6; with odd ends, boxes and areas do not tell it."""
    masks = np.concatenate([np.stack([bar(0, 9), bar(3, 12)]), np.zeros((2, 1, 20), bool)], 1)
    if ends:
        masks[0, 0, 0], masks[0, 1, 11] = False, True
        masks[1, 0, 11], masks[1, 1, 0] = False, True
    boxes = [[0, 0, 9, 1], [3, 0, 12, 1]]
    for threshold, kept in ((0.5, [0, 1]), (0.499, [0])):
        options = MergeOptions(by=by, iou_threshold=threshold)
        assert merge(boxes, [0.9, 0.8], ['a', 'a'], encode(masks), options).tolist() == kept


def test_masks_decide_where_all_else_is_equal():
    """The middle mask alone, or both others: not a matter of who comes first."""
    bars = [bar(0, 9), bar(1, 10), bar(2, 11)]
    outcomes = set()
    for order in itertools.permutations(range(3)):
        masks = encode(np.stack([bars[i] for i in order]))
        options = MergeOptions(by='mask', iou_threshold=0.7)
        kept = merge([[0, 0, 20, 1]] * 3, [0.5] * 3, ['a'] * 3, masks, options)
        outcomes.add(tuple(order[i] for i in kept))
    assert len(outcomes) == 1


def test_empty_masks_and_boxes_suppress_nothing():
    masks = encode(np.zeros((2, 8, 8), bool))
    boxes = np.zeros((2, 4), np.float32)
    for by in ('box', 'mask'):
        assert merge(boxes, [0.5, 0.6], ['a', 'b'], masks, MergeOptions(by=by)).tolist() == [1, 0]
        assert merge(boxes[:0], [], [], [], MergeOptions(by=by)).tolist() == []


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'scores': [0.5]}, 'one length'),
        ({'names': ['a']}, r'\[2, 2, 1, 2\]'),
        ({'scores': [0.5, np.nan]}, 'finite'),
        ({'boxes': [[0, 0, 1, 1], [0, 0, np.inf, 1]]}, 'finite'),
        ({'run_lengths': None}, 'run_lengths'),
        (
            {'run_lengths': encode(np.ones((1, 8, 8), bool)) + encode(np.ones((1, 8, 9), bool))},
            'size of the image',
        ),
    ],
)
def test_merge_refuses(change, message):
    arguments = {
        'boxes': [[0, 0, 1, 1], [0, 0, 2, 2]],
        'scores': [0.5, 0.6],
        'names': ['a', 'b'],
        'run_lengths': encode(np.ones((2, 8, 8), bool)),
        'options': MergeOptions(by='mask'),
    }
    assert len(merge(**arguments)) == 1
    with pytest.raises(ValueError, match=message):
        merge(**{**arguments, **change})


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'iou_threshold': 1.1}, '1.1'),
        ({'by': 'polygon'}, "'polygon'"),
        ({'max_detections': 0}, 'max_detections'),
    ],
)
def test_merge_options_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        MergeOptions(**settings)


def scattered_masks(count: int) -> tuple[np.ndarray, list[dict]]:
    """Many small objects on a large image, each proposed about ten times."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, 1900, (count // 10, 2))
    corners = places[rng.integers(0, len(places), count)] + rng.integers(0, 4, (count, 2))
    boxes = np.concatenate([corners, corners + 40], 1).astype(np.float64)
    as_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    return boxes, rle.frPyObjects(as_xywh, 2000, 2000)


def test_five_thousand_masks_take_little_memory_and_few_comparisons(monkeypatch):
    boxes, masks = scattered_masks(5000)
    compared = []
    real = rle.iou

    def counted(ours, theirs, crowd):
        compared.append(len(ours) * len(theirs))
        return real(ours, theirs, crowd)

    monkeypatch.setattr(ensemble.rle, 'iou', counted)
    scores = np.random.default_rng(1).random(5000)
    tracemalloc.start()
    kept = merge(boxes, scores, ['thing'] * 5000, masks, MergeOptions(by='mask', iou_threshold=0.5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 300 < len(kept) < 600
    assert sum(compared) < 5000 * 20  # of 12.5 million pairs
    assert peak < 16e6  # a matrix of all pairs is 200 MB
    # On boxes as masks both ways agree.
    assert (
        kept.tolist()
        == merge(boxes, scores, ['thing'] * 5000, options=MergeOptions(iou_threshold=0.5)).tolist()
    )
