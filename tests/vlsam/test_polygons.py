"""One polygon a mask: drawn again by PIL and by OpenCV it covers the mask, whatever its shape."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from atss_ext.vlsam.export import mask_polygon


def drawn_by_pil(points, size):
    canvas = Image.new('1', size[::-1])
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points.tolist()], fill=1)
    return np.array(canvas)


def drawn_by_opencv(points, size):
    """As ultralytics does: coordinates cut to integers."""
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
    return canvas.astype(bool)


def centres_within(points, size):
    """The even-odd rule at the centres of the pixels: no edge drawn, nothing rounded."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.zeros(size, bool)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        crosses = (y1 > rows) != (y2 > rows)
        with np.errstate(divide='ignore', invalid='ignore'):
            inside ^= crosses & (columns < x1 + (rows - y1) * (x2 - x1) / (y2 - y1))
    return inside


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def shape(name):
    mask = np.zeros((60, 80), np.uint8)
    if name == 'rectangle':
        mask[10:40, 20:70] = 1
    elif name == 'disk':
        cv2.circle(mask, (40, 30), 22, 1, -1)
    elif name == 'ring':
        cv2.circle(mask, (40, 30), 25, 1, -1)
        cv2.circle(mask, (40, 30), 12, 0, -1)
    elif name == 'two holes':
        mask[5:55, 5:75] = 1
        mask[10:30, 10:30] = 0
        mask[35:50, 40:70] = 0
    elif name == 'two parts':
        mask[5:30, 5:30] = 1
        mask[30:58, 36:78] = 1
    elif name == 'island in a lake':
        cv2.circle(mask, (40, 30), 28, 1, -1)
        cv2.circle(mask, (40, 30), 20, 0, -1)
        cv2.circle(mask, (40, 30), 12, 1, -1)
    elif name == 'one pixel':
        mask[17, 33] = 1
    elif name == 'two pixels':
        mask[17, 33:35] = 1
    elif name == 'corner pixel':
        mask[59, 79] = 1
    elif name == 'three by three':
        mask[20:23, 20:23] = 1
    elif name == 'row':
        mask[17, 5:70] = 1
    elif name == 'diagonal':
        np.fill_diagonal(mask, 1)
    elif name == 'comb':
        mask[40:50, 5:75] = 1
        mask[10:40, 5:75:2] = 1
    elif name == 'everything':
        mask[:] = 1
    return mask.astype(bool)


SHAPES = [
    'rectangle', 'disk', 'ring', 'two holes', 'one pixel', 'two pixels', 'corner pixel', 'three by three',
    'row', 'diagonal', 'comb', 'everything',
]  # fmt: skip
APART = ['two parts', 'island in a lake']  # the bridge is drawn as well


@pytest.mark.parametrize('name', SHAPES)
@pytest.mark.parametrize('draw', [drawn_by_pil, drawn_by_opencv, centres_within])
def test_the_exact_polygon_is_the_mask(name, draw):
    mask = shape(name)
    points = mask_polygon(mask, 1.0)
    assert len(points) >= 3
    np.testing.assert_array_equal(draw(points, mask.shape), mask)


@pytest.mark.parametrize('name', APART)
def test_parts_are_joined_at_the_cost_of_a_bridge(name):
    mask = shape(name)
    points = mask_polygon(mask, 1.0)
    np.testing.assert_array_equal(centres_within(points, mask.shape), mask)
    for draw in (drawn_by_pil, drawn_by_opencv):
        drawn = draw(points, mask.shape)
        assert (drawn & mask).sum() == mask.sum()
        assert 0 < (drawn & ~mask).sum() <= 8
        assert iou(drawn, mask) > 0.98


@pytest.mark.parametrize('name', SHAPES + APART)
@pytest.mark.parametrize('least', [0.9, 0.98])
def test_a_simplified_polygon_has_fewer_points_and_covers_the_mask(name, least):
    mask = shape(name)
    exact, simple = mask_polygon(mask, 1.0), mask_polygon(mask, least)
    assert len(simple) <= len(exact)
    assert iou(drawn_by_opencv(simple, mask.shape), mask) >= least * 0.98
    if name in ('disk', 'ring'):
        assert len(simple) < len(exact) / 2


def test_a_speck_far_away_is_not_worth_its_bridge():
    mask = np.zeros((100, 400), bool)
    mask[10:60, 10:60] = True
    large = mask.copy()
    mask[80:82, 390:392] = True
    for draw in (drawn_by_pil, drawn_by_opencv, centres_within):
        np.testing.assert_array_equal(draw(mask_polygon(mask, 1.0), mask.shape), large)


def test_a_rectangle_literally():
    mask = np.zeros((10, 10), bool)
    mask[2:4, 3:7] = True
    corners = {(3.25, 2.25), (6.75, 2.25), (6.75, 3.75), (3.25, 3.75)}
    assert {tuple(point) for point in mask_polygon(mask, 1.0).tolist()} == corners


def test_no_mask_no_polygon():
    assert mask_polygon(np.zeros((5, 5), bool)) is None


def test_large_masks_are_outlined_through_their_pixels():
    mask = np.zeros((2300, 2300), np.uint8)
    cv2.circle(mask, (1150, 1150), 1100, 1, -1)
    cv2.circle(mask, (1000, 1150), 300, 0, -1)
    mask[0, :5] = 1  # and the crop is the whole
    points = mask_polygon(mask.astype(bool), 0.99)
    assert iou(drawn_by_opencv(points, mask.shape), mask.astype(bool)) > 0.985
    assert len(points) < 400
    line = np.eye(2100, dtype=bool)  # its contour has two points
    points = mask_polygon(line, 1.0)
    assert len(points) == 3
    np.testing.assert_array_equal(drawn_by_opencv(points, line.shape), line)


@pytest.mark.parametrize('share', [0.3, 0.5, 0.7])
def test_noise_ends_in_a_polygon_of_its_largest_part(share):
    """Hundreds of parts and holes: bounded work, and still a polygon."""
    mask = np.random.default_rng(0).random((80, 80)) < share
    points = mask_polygon(mask, 1.0)
    drawn = drawn_by_opencv(points, mask.shape)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    largest = max(range(1, count), key=lambda label: (labels == label).sum())
    assert ((labels == largest) & ~drawn).sum() == 0
    assert iou(drawn, mask) > (0.1 if share == 0.3 else 0.6)
