import itertools

import cv2
import numpy as np
import pytest

from atss_ext.visualization.detections import Exhibit, draw_detections, match, name_colour

RED, BLUE = (214, 38, 40), (38, 82, 216)
COLOURS = {'red circle': RED, 'blue square': BLUE}


def exhibit(**changes):
    image = np.full((100, 140, 3), 120, dtype=np.uint8)
    image[:, :10] = (10, 250, 30)  # a green stripe, to see where and in which colours the image lies
    parts = {
        'title': 'one.jpg',
        'image': image,
        'boxes': np.array([[30.0, 40, 60, 80], [90, 40, 120, 70]]),
        'names': ['red circle', 'blue square'],
        'found_boxes': np.array([[31.0, 41, 61, 81], [90, 10, 110, 25], [60, 80, 80, 95]]),
        'found_names': ['red circle', 'blue square', 'blue square'],
        'scores': np.array([0.9, 0.6, 0.1]),
    }
    return Exhibit(**{**parts, **changes})


def read(path):
    return cv2.imread(str(path))[..., ::-1].astype(int)


def near(page, place, colour, tolerance=60, reach=2):
    """Whether the colour appears within ``reach`` pixels of a place of the page."""
    column, row = place
    patch = page[row - reach : row + reach + 1, column - reach : column + reach + 1]
    return bool((np.abs(patch - colour).max(axis=2) < tolerance).any())


def test_truth_lies_left_and_detections_right(tmp_path):
    ((left, right),) = draw_detections(tmp_path / 'page.png', [exhibit()], 'Title', 0.3, COLOURS)
    page = read(tmp_path / 'page.png')
    for panel in (left, right):  # the images themselves, in their own colours
        assert near(page, panel.pixel(5, 50), (10, 250, 30), 10, 0)
        assert near(page, panel.pixel(75, 50), (120, 120, 120), 10, 0)
    # Middles of vertical edges, where no label stands.
    assert near(page, left.pixel(30, 70), RED)
    assert near(page, left.pixel(120, 55), BLUE)
    assert near(page, right.pixel(31, 70), RED)
    assert not near(page, right.pixel(120, 55), BLUE)  # the true blue square was not found
    assert near(page, right.pixel(100, 25), BLUE) or near(page, right.pixel(103, 25), BLUE)  # dashed
    assert not near(page, right.pixel(80, 88), BLUE)  # below the threshold


def test_a_wrong_detection_is_dashed_and_a_right_one_is_not(tmp_path):
    found = exhibit(found_boxes=np.array([[30.0, 40, 60, 80], [90, 5, 130, 30]]), scores=np.array([0.9, 0.8]),
                    found_names=['red circle', 'blue square'])  # fmt: skip
    ((_, right),) = draw_detections(tmp_path / 'page.png', [found], 'Title', 0.3, COLOURS)
    page = read(tmp_path / 'page.png')
    solid = [near(page, right.pixel(60, y), RED, reach=1) for y in np.arange(50, 78, 0.5)]
    dashed = [near(page, right.pixel(130, y), BLUE, reach=1) for y in np.arange(10, 28, 0.5)]
    assert all(solid)
    assert any(dashed)
    assert not all(dashed)


def test_matching_takes_each_true_box_once_and_needs_the_name():
    boxes = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    found = np.array([[0.0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 40, 40], [20, 20, 40, 31], [20, 20, 40, 29]])
    page = exhibit(
        boxes=boxes, names=['a', 'b'], found_boxes=found, found_names=['a', 'a', 'a', 'b', 'b'],
        scores=np.array([0.5, 0.9, 0.99, 0.4, 0.8]),
    )  # fmt: skip
    # 0: the better one took the box; 2: wrong name; 3: IoU 0.55; 4: IoU 0.45
    assert match(page, np.ones(5, dtype=bool)).tolist() == [False, True, False, True, False]
    assert match(page, np.array([True, False, True, True, True])).tolist() == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_labels_stay_inside_and_apart():
    from atss_ext.visualization.labels import draw_boxes
    from atss_ext.visualization.page import Page, Panel

    rng = np.random.default_rng(0)
    corners = rng.uniform([0, 0], [230, 170], (12, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 90, (12, 2))], axis=1)
    page = Page(600, 500)
    axes = page.image(np.zeros((192, 256, 3), dtype=np.uint8), Panel(20, 40, 2.0))
    places = draw_boxes(axes, boxes, [f'yellow triangle 0.{n:02d}' for n in range(12)], [RED] * 12)
    kept = [place for place in places if place is not None]
    assert len(kept) >= 9
    for one, other in itertools.combinations(kept, 2):
        assert one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0
    for place in kept:
        assert place.x0 >= 20
        assert place.x1 <= 20 + 512
        assert place.y0 >= 500 - 40 - 384
        assert place.y1 <= 500 - 40
        assert place.width > 60  # twenty letters, measured after layout


def test_an_empty_image_and_no_detections_can_be_drawn(tmp_path):
    nothing = {'boxes': np.zeros((0, 4)), 'names': [], 'found_boxes': np.zeros((0, 4)), 'found_names': [],
               'scores': np.zeros(0)}  # fmt: skip
    panels = draw_detections(tmp_path / 'deep' / 'page.png', [exhibit(**nothing), exhibit()], 'Title')
    assert len(panels) == 2
    assert panels[0][0].top == panels[1][0].top
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['page.png']


def test_the_same_exhibits_give_the_same_bytes(tmp_path):
    for name in ('one.png', 'two.png'):
        draw_detections(tmp_path / name, [exhibit()], 'Title', colours=COLOURS)
    assert (tmp_path / 'one.png').read_bytes() == (tmp_path / 'two.png').read_bytes()


def test_names_without_a_colour_keep_one_wherever_they_appear():
    assert name_colour('zebra', {}) == name_colour('zebra', {'horse': RED})
    assert name_colour('zebra', {'zebra': RED}) == RED


def test_bad_images_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r'exhibits is empty: pass at least one image to draw.'):
        draw_detections(tmp_path / 'page.png', [], 'Title')
    with pytest.raises(ValueError, match=r'image must be RGB uint8 \[H,W,3\], but is float64 \[4, 5, 3\].'):
        draw_detections(tmp_path / 'page.png', [exhibit(image=np.zeros((4, 5, 3)))], 'Title')
    assert not (tmp_path / 'page.png').exists()
