"""Kinds of errors: literal scenes, a plain oracle, and curves against pycocotools."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.errors import (
    Kind,
    Outcome,
    average_precision,
    by_frequency,
    by_size,
    classify,
    confusion_matrix,
    match,
    mean_curve,
    most_confused,
    precision_curves,
    read_detections,
    read_truth,
    worst_images,
)

SQUARE = [0, 0, 10, 10]
TWICE = [0, 0, 10, 20]  # IoU 1/2 with the square
THRICE = [0, 0, 10, 30]  # IoU 1/3
TENFOLD = [0, 0, 10, 100]  # IoU 1/10
FAR = [200, 200, 10, 10]


def coco(objects, images=1, categories=3, **extra):
    """A file of (category, box, crowd) or (category, box, crowd, image)."""
    return {
        'images': [
            {'id': n, 'file_name': f'{n}.jpg', 'width': 300, 'height': 300, **extra}
            for n in range(1, images + 1)
        ],
        'categories': [{'id': n, 'name': f'c{n}'} for n in range(1, categories + 1)],
        'annotations': [
            {
                'id': number,
                'image_id': rest[0] if rest else 1,
                'category_id': category,
                'bbox': box,
                'area': box[2] * box[3],
                'iscrowd': crowd,
            }
            for number, (category, box, crowd, *rest) in enumerate(objects, 1)
        ],
    }


def results(detections):
    return [
        {'image_id': rest[0] if rest else 1, 'category_id': category, 'bbox': box, 'score': score}
        for category, box, score, *rest in detections
    ]


def kinds_of(content, detections, score=0.0, iou=0.5):
    truth = read_truth(content, 'ann.json')
    return classify(match(truth, read_detections(results(detections), truth, 'res.json'), iou), score)


ONE = [(1, SQUARE, 0)]
SCENES = {
    'correct': (ONE, [(1, SQUARE, 0.9)], ['CORRECT'], ['FOUND']),
    'just enough': (ONE, [(1, TWICE, 0.9)], ['CORRECT'], ['FOUND']),
    'duplicate': (ONE, [(1, SQUARE, 0.9), (1, SQUARE, 0.8)], ['CORRECT', 'DUPLICATE'], ['FOUND']),
    'best score': (ONE, [(1, TWICE, 0.9), (1, SQUARE, 0.8)], ['CORRECT', 'DUPLICATE'], ['FOUND']),
    'confused': (ONE, [(2, SQUARE, 0.9)], ['CONFUSED'], ['CONFUSED']),
    'localisation': (ONE, [(1, THRICE, 0.9)], ['LOCALISATION'], ['LOCALISATION']),
    'just localisation': (ONE, [(1, TENFOLD, 0.9)], ['LOCALISATION'], ['LOCALISATION']),
    'both': (ONE, [(2, THRICE, 0.9)], ['BOTH'], ['MISSED']),
    'background': (ONE, [(1, FAR, 0.9)], ['BACKGROUND'], ['MISSED']),
    'no objects': ([], [(1, FAR, 0.9)], ['BACKGROUND'], []),
    'no detections': (ONE, [], [], ['MISSED']),
    'found and confused': (ONE, [(1, SQUARE, 0.9), (2, SQUARE, 0.8)], ['CORRECT', 'CONFUSED'], ['FOUND']),
    'duplicate before confused': (
        [(1, SQUARE, 0), (2, SQUARE, 0)],
        [(1, SQUARE, 0.9), (1, SQUARE, 0.8)],
        ['CORRECT', 'DUPLICATE'],
        ['FOUND', 'MISSED'],
    ),
    'confused before localisation': (
        [(1, THRICE, 0), (2, SQUARE, 0)],
        [(1, SQUARE, 0.9)],
        ['CONFUSED'],
        ['MISSED', 'CONFUSED'],
    ),
    'crowd': (
        [(1, [0, 0, 100, 100], 1)],
        [(1, SQUARE, 0.9), (1, SQUARE, 0.8), (2, SQUARE, 0.7)],
        ['IGNORED', 'IGNORED', 'BACKGROUND'],
        ['IGNORED'],
    ),
    'an object goes before a crowd': (
        [(1, [0, 0, 100, 100], 1), (1, TWICE, 0)],
        [(1, SQUARE, 0.9), (1, SQUARE, 0.8)],
        ['CORRECT', 'IGNORED'],
        ['FOUND', 'IGNORED'],
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', SCENES)
def test_each_scene_has_its_kinds(name):
    objects, detections, kinds, outcomes = SCENES[name]
    got = kinds_of(coco(objects), detections)
    assert [Kind(kind).name for kind in got.kind] == kinds
    assert [Outcome(one).name for one in got.outcome] == outcomes


def test_detections_below_the_score_are_no_errors_and_cover_nothing():
    got = kinds_of(coco(ONE), [(1, SQUARE, 0.4), (1, FAR, 0.6), (2, SQUARE, 0.5)], score=0.5)
    assert got.kind.tolist() == [Kind.BACKGROUND, Kind.CONFUSED, -1]
    assert got.outcome.tolist() == [Outcome.CONFUSED]


def test_what_an_lvis_image_was_not_searched_for_is_ignored():
    content = coco([(1, SQUARE, 0)], categories=4, neg_category_ids=[2], not_exhaustive_category_ids=[1])
    detections = [(1, FAR, 0.9), (2, FAR, 0.8), (3, SQUARE, 0.7), (1, SQUARE, 0.6), (2, SQUARE, 0.5)]
    got = kinds_of(content, detections)
    expected = [Kind.IGNORED, Kind.BACKGROUND, Kind.IGNORED, Kind.CORRECT, Kind.CONFUSED]
    assert got.kind.tolist() == expected


def overlap(a, b, crowd=False):
    wide = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    high = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    both = wide * high
    return both / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - both)


def oracle(objects, detections, threshold):
    """The kinds by the definitions, one detection after another; they come in order of scores."""
    taken, kinds = set(), []
    for category, box, _ in detections:
        free = [
            (crowd == 0, overlap(box, other, crowd), place)
            for place, (name, other, crowd) in enumerate(objects)
            if name == category and overlap(box, other, crowd) >= threshold and (crowd or place not in taken)
        ]
        if free:
            counted, _, place = max(free)
            taken.add(place)
            kinds.append('CORRECT' if counted else 'IGNORED')
            continue
        real = [(name, overlap(box, other)) for name, other, crowd in objects if not crowd]
        own = max([iou for name, iou in real if name == category], default=0)
        others = max([iou for name, iou in real if name != category], default=0)
        for name, holds in (
            ('DUPLICATE', own >= threshold),
            ('CONFUSED', others >= threshold),
            ('LOCALISATION', own >= 0.1),
            ('BOTH', others >= 0.1),
            ('BACKGROUND', True),
        ):
            if holds:
                kinds.append(name)
                break
    return kinds


def random_box(rng):
    return [
        int(rng.integers(0, 12)),
        int(rng.integers(0, 12)),
        int(rng.integers(2, 12)),
        int(rng.integers(2, 12)),
    ]


def random_scene(rng, images=1, most=30):
    objects = [
        (int(rng.integers(1, 4)), random_box(rng), int(rng.random() < 0.15), image)
        for image in range(1, images + 1)
        for _ in range(rng.integers(0, 9))
    ]
    detections = [
        (int(rng.integers(1, 4)), random_box(rng), float(rng.integers(1, 12) / 12), image)
        for image in range(1, images + 1)
        for _ in range(rng.integers(0, most))
    ]
    return objects, detections


def test_kinds_agree_with_the_plain_oracle():
    seen = set()
    for seed in range(150):
        objects, detections = random_scene(np.random.default_rng(seed))
        threshold = (0.5, 0.3, 0.75)[seed % 3]
        expected = oracle(
            [one[:3] for one in objects],
            [one[:3] for one in sorted(detections, key=lambda one: -one[2])],
            threshold,
        )
        got = kinds_of(coco(objects), detections, iou=threshold)
        assert [Kind(kind).name for kind in got.kind] == expected, seed
        seen |= set(expected)
    assert seen == {kind.name for kind in Kind}


def reference(content, detections, place):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(results(detections)), 'bbox')
        scorer.evaluate()
        scorer.accumulate()
    return scorer.eval['precision'][place, :, :, 0, -1]


@pytest.mark.parametrize(('iou', 'place'), [(0.5, 0), (0.75, 5), (0.95, 9)])
@pytest.mark.parametrize('seed', range(4))
def test_curves_are_those_of_pycocotools(seed, iou, place):
    # More than 100 detections of a category on an image, tied scores, crowds, a category without objects.
    rng = np.random.default_rng(seed)
    objects, detections = random_scene(rng, images=8, most=420)
    exact = [(category, box, float(rng.random()), image) for category, box, _, image in objects[::2]]
    detections = exact + detections
    content = coco(objects, images=9, categories=4)
    kinds = kinds_of(content, detections, iou=iou)
    expected = reference(content, detections, place)
    np.testing.assert_allclose(precision_curves(kinds.matching), expected, atol=1e-9)
    assert (expected[:, 3] == -1).all()
    assert expected[:, :3].max() > 0


def test_a_curve_and_its_mean():
    content = coco([(1, SQUARE, 0), (1, FAR, 0), (2, SQUARE, 0)])
    curves = precision_curves(
        kinds_of(content, [(1, SQUARE, 0.9), (1, [100, 100, 5, 5], 0.8), (1, FAR, 0.7)]).matching
    )
    assert curves[:, 0] == pytest.approx([1.0] * 51 + [2 / 3] * 50)
    assert average_precision(curves) == pytest.approx([(51 + 100 / 3) / 101, 0, -1])
    assert mean_curve(curves)[[0, 100]] == pytest.approx([1 / 2, 1 / 3])


def test_the_matrix_counts_every_detection_once():
    objects = [(1, SQUARE, 0), (2, FAR, 0), (2, [100, 0, 10, 10], 0)]
    detections = [(1, SQUARE, 0.9), (1, FAR, 0.8), (1, FAR, 0.7), (3, [50, 50, 9, 9], 0.6), (1, SQUARE, 0.5)]
    matrix = confusion_matrix(kinds_of(coco(objects), detections))
    assert matrix.tolist() == [[1, 0, 0, 0], [2, 0, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0]]
    assert most_confused(matrix, 2) == [0, 1]
    assert most_confused(matrix, 9) == [0, 1, 2]


def test_sizes_and_frequencies():
    objects = [(1, [0, 0, 31, 33], 0), (1, [0, 0, 32, 32], 0), (2, [0, 0, 96, 96], 0), (1, [90, 90, 9, 9], 1)]
    kinds = kinds_of(coco(objects), [(2, [0, 0, 96, 96], 0.9), (3, FAR, 0.8)])
    assert [group.objects.sum() for group in by_size(kinds)] == [2, 1, 1]
    assert [group.detections.tolist() for group in by_size(kinds)] == [
        [0, 0, 0, 0, 0, 1, 0],
        [0] * 7,
        [1, 0, 0, 0, 0, 0, 0],
    ]
    few, some, many = by_frequency(kinds)
    # Two categories have objects, so the last third is empty; one has none and joins the first.
    assert [few.categories, some.categories, many.categories] == [2, 1, 0]
    assert few.detections.tolist() == [1, 0, 0, 0, 0, 1, 0]
    content = coco(objects)
    for category, letter in zip(content['categories'], 'frc', strict=True):
        category['frequency'] = letter
    assert [group.objects.sum() for group in by_frequency(kinds_of(content, []))] == [1, 0, 3]


def test_the_worst_image_has_most_missed_and_most_confident_errors():
    objects = [(1, SQUARE, 0, 2), (1, FAR, 0, 2), (1, SQUARE, 0, 3)]
    detections = [(1, SQUARE, 0.9, 3), (1, FAR, 0.25, 3), (1, FAR, 0.75, 1)]
    worst = worst_images(kinds_of(coco(objects, images=4), detections), 3)
    assert [(one.row, one.cost) for one in worst] == [(1, 2.0), (0, 0.75), (2, 0.25)]


def test_costs_stay_finite_for_json():
    content = coco([(1, SQUARE, 0)])
    for detection in (1e308, 1.7e308):
        (one,) = worst_images(kinds_of(content, [(1, FAR, detection), (2, FAR, detection)]), 3)
        assert one.cost == np.finfo(np.float64).max


@pytest.mark.filterwarnings('error')
def test_a_box_whose_area_is_beyond_floats_is_large():
    kinds = kinds_of(coco(ONE), [(1, [0, 0, 1e300, 1e300], 0.9)])
    assert [group.detections.sum() for group in by_size(kinds)] == [0, 0, 1]


def test_a_threshold_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r'IoU threshold is 1\.5, but must be above 0'):
        kinds_of(coco(ONE), [], iou=1.5)


def test_a_file_without_objects_to_compare_with_is_refused():
    with pytest.raises(DataError, match=r"ann\.json has no list 'annotations'"):
        read_truth({'images': [], 'categories': []}, 'ann.json')
