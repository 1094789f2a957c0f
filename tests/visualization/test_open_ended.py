"""Pages and frames of what was found: right colours in right places, any name, any size."""

import itertools
import warnings

import cv2
import numpy as np
import pytest
from matplotlib import cbook

from atss_ext.visualization import letters
from atss_ext.visualization.detections import name_colour
from atss_ext.visualization.open_ended import draw_open_ended, overlay_frame

GREY = (120, 120, 120)
TINTS = {'cat': (230, 30, 30), 'dog': (30, 60, 230)}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def grey(height=100, width=140):
    return np.full((height, width, 3), GREY, np.uint8)


def masks_of(boxes, size):
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, np.asarray(boxes, int), strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


BOXES = np.array([[20.0, 30, 60, 80], [90, 40, 130, 90]])
MASKS = masks_of([[25, 35, 55, 75], [95, 45, 125, 85]], (100, 140))  # smaller than their boxes
FOUND = (BOXES, ['cat', 'dog'], np.array([0.9, 0.4]))


def tinted(colour, under=GREY):
    return np.array(under) * 0.58 + np.array(colour) * 0.42


def saved(page, tmp_path):
    return cv2.imread(str(page.save(tmp_path / 'page.png')))[..., ::-1].astype(int)


def near(pixels, place, colour, tolerance=60, reach=2):
    """Whether the colour appears within ``reach`` pixels of a place (column, row)."""
    column, row = place
    patch = pixels[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
    return bool((np.abs(patch - colour).max(axis=2) <= tolerance).any())


def labels_of(page):
    return [text.get_text() for axes in page.figure.axes for text in axes.texts]


def words_of(page):
    return [text.get_text() for text in page.figure.texts]


# Pages


def test_masks_boxes_and_names_lie_where_they_should(tmp_path):
    page = draw_open_ended(grey(), *FOUND, MASKS.__getitem__, title='one.jpg', colours=TINTS)
    pixels, at = saved(page, tmp_path), page.picture.pixel
    assert pixels.shape == (page.height, page.width, 3)
    for place, name in (((40, 50), 'cat'), ((110, 65), 'dog')):
        assert near(pixels, at(*place), tinted(TINTS[name]), 2, 0)
    assert near(pixels, at(75, 50), GREY, 1, 0)
    assert near(pixels, at(57.5, 32.5), GREY, 1, 0)  # in the box, not in the mask
    assert near(pixels, at(60, 50), TINTS['cat'], 40)  # edges of the boxes
    assert near(pixels, at(130, 65), TINTS['dog'], 40)
    assert near(pixels, at(55, 60), TINTS['cat'], 60)  # and the outline of the mask
    assert sorted(labels_of(page)) == ['cat 0.90', 'dog 0.40']
    assert {'one.jpg', '2 objects.', 'cat', '0.90', 'dog', '0.40'} < set(words_of(page))
    assert page.shown == [0, 1]


def test_boxes_may_be_left_out(tmp_path):
    page = draw_open_ended(grey(), *FOUND, MASKS.__getitem__, colours=TINTS, show_boxes=False)
    pixels = saved(page, tmp_path)
    assert not near(pixels, page.picture.pixel(60, 50), TINTS['cat'], 40)
    assert near(pixels, page.picture.pixel(40, 50), tinted(TINTS['cat']), 2, 0)
    assert sorted(labels_of(page)) == ['cat 0.90', 'dog 0.40']


def test_only_the_best_above_the_threshold_are_shown(tmp_path):
    asked = []

    def mask(index):
        asked.append(index)
        return MASKS[index % 2]

    boxes, scores = np.repeat(BOXES, 2, axis=0), np.array([0.2, 0.6, 0.9, 0.8])
    page = draw_open_ended(grey(), boxes, list('abcd'), scores, mask, threshold=0.5, max_objects=2)
    assert page.shown == [2, 3]
    assert sorted(asked) == [2, 3]  # the others are never decoded
    assert '2 objects with a score of at least 0.5; 1 more above it and 1 below.' in words_of(page)
    page = draw_open_ended(grey(), *FOUND, threshold=0.95, colours=TINTS)
    assert 'No object with a score of at least 0.95; 2 below.' in words_of(page)
    assert not near(saved(page, tmp_path), page.picture.pixel(60, 50), TINTS['cat'], 40)


def test_a_small_object_lies_on_a_large_one(tmp_path):
    boxes = np.array([[50.0, 40, 70, 60], [10, 10, 130, 90]])
    masks = masks_of(boxes, (100, 140))
    page = draw_open_ended(
        grey(), boxes, ['cat', 'dog'], np.array([0.9, 0.4]), masks.__getitem__, colours=TINTS
    )
    pixels = saved(page, tmp_path)
    assert near(pixels, page.picture.pixel(60, 50), tinted(TINTS['cat'], tinted(TINTS['dog'])), 3, 0)


def test_a_reduced_image_shows_the_same_page(tmp_path):
    """Detections of 2,000 x 2,800 on a picture of a twentieth of it."""
    boxes, names, scores = FOUND
    large = masks_of(np.array([[25, 35, 55, 75], [95, 45, 125, 85]]) * 20, (2000, 2800))
    page = draw_open_ended(
        grey(), boxes * 20, names, scores, large.__getitem__, size=(2000, 2800), colours=TINTS
    )
    assert page.picture.scale == pytest.approx(480 / 2800)
    pixels = saved(page, tmp_path)
    assert near(pixels, page.picture.pixel(800, 1000), tinted(TINTS['cat']), 2, 0)
    same = saved(draw_open_ended(grey(), *FOUND, MASKS.__getitem__, colours=TINTS), tmp_path)
    assert pixels.shape == same.shape
    assert (np.abs(pixels - same).max(axis=2) > 60).mean() < 0.01  # the outlines differ by a page's pixel


@pytest.mark.parametrize('size', [(8, 8), (3000, 4000), (8, 5000), (3000, 10)])
def test_images_of_every_size_fit_a_page(tmp_path, size):
    height, width = size
    image = grey(height, width)
    boxes = np.array([[0.0, 0, width, height]])
    page = draw_open_ended(
        image, boxes, ['cat'], np.array([0.5]), masks_of(boxes, size).__getitem__, colours=TINTS
    )
    pixels = saved(page, tmp_path)
    assert page.width <= 1032
    assert page.height <= 1200
    shape = round(height * page.picture.scale), round(width * page.picture.scale)
    assert max(shape) == (480 if max(size) < 240 else 1000)
    if min(shape) > 20:
        assert near(pixels, page.picture.pixel(width / 2, height * 0.7), tinted(TINTS['cat']), 2, 0)


def test_fifty_objects_have_numbers_and_a_list(tmp_path):
    rng = np.random.default_rng(0)
    corners = rng.uniform([0, 0], [560, 400], (50, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 80, (50, 2))], axis=1)
    names = [f'thing {number}' for number in range(50)]
    page = draw_open_ended(grey(480, 640), boxes, names, np.linspace(0.99, 0.5, 50))
    page.save(tmp_path / 'page.png')
    numbers = [int(label) for label in labels_of(page)]
    assert len(numbers) >= 48  # nearly all have room in the picture
    assert set(numbers) <= set(range(1, 51))
    texts = {text.get_text(): text.get_position() for text in page.figure.texts}
    places = [texts[f'{number + 1}  thing {number}'] for number in range(50)]  # and all are in the list
    for (x1, y1), (x2, y2) in itertools.combinations(places, 2):
        assert abs(x1 - x2) * page.width > 200 or abs(y1 - y2) * page.height > 15
    assert all(0 < x < 1 and 0 < y < 1 for x, y in places)


def test_nothing_found_is_a_page_too(tmp_path):
    page = draw_open_ended(grey(), np.zeros((0, 4)), [], np.zeros(0), maps=np.zeros((0, 4, 4)), points=[])
    assert near(saved(page, tmp_path), page.picture.pixel(70, 50), GREY, 1, 0)
    assert 'No object.' in words_of(page)
    assert page.shown == page.maps == []


def test_attention_is_hot_where_it_should_be_and_points_lie_on_it(tmp_path):
    maps = np.zeros((2, 10, 14), np.float32)
    maps[0, 5, 4], maps[1, 6, 11] = 0.5, 0.01  # each is stretched by itself
    points = [np.array([[100, 20, 1], [20, 90, 0], [70, 50, -10]]), np.zeros((0, 3))]
    page = draw_open_ended(grey(), *FOUND, maps=maps, points=points, colours=TINTS)
    pixels = saved(page, tmp_path)
    first, second = page.maps
    hot = np.array([222, 213, 110])  # the upper end of the colours, over the faded image
    assert near(pixels, first.pixel(45, 55), hot, 30, 1)
    assert near(pixels, second.pixel(115, 65), hot, 30, 1)
    assert near(pixels, first.pixel(115, 65), GREY, 3, 1)  # 60 + 120 / 2, faded
    assert near(pixels, first.pixel(100, 20), (57, 211, 83), 10, 1)  # green: on the object
    assert near(pixels, first.pixel(20, 90), (255, 92, 92), 10, 1)  # red: beside it
    assert near(pixels, first.pixel(70, 50), GREY, 3, 1)  # padding
    assert near(pixels, second.pixel(100, 20), GREY, 3, 1)
    assert len(draw_open_ended(grey(), *FOUND, maps=maps, max_maps=1).maps) == 1
    flat = draw_open_ended(grey(), *FOUND, maps=np.ones((2, 3, 3)))
    assert near(saved(flat, tmp_path), flat.maps[0].pixel(70, 50), GREY, 3, 1)


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    pages = [draw_open_ended(grey(), *FOUND, MASKS.__getitem__, maps=np.ones((2, 3, 3))) for _ in range(2)]
    one, two = (page.save(tmp_path / f'{number}.png').read_bytes() for number, page in enumerate(pages))
    assert one == two


# Names


def test_names_of_any_kind_are_printed_without_a_warning(tmp_path):
    names = [
        '红色的圆',
        'красный круг',
        'costs $x^{$',
        'a\nb\tc',
        '🚗 car',
        'x' * 300,
        '\u0000',
        'cafe\u0301',
    ]
    boxes = np.array([[16.0 * n, 30, 16 * n + 12, 60] for n in range(len(names))])
    page = draw_open_ended(grey(), boxes, names, np.full(len(names), 0.5), title='$1 红 $2')
    page.save(tmp_path / 'page.png')
    assert not any(cbook.is_math_text(word) for word in words_of(page) + labels_of(page))
    listed = [word.replace(r'\$', '$') for word in words_of(page)]
    assert '$1 □ $2' in listed
    for words in ('□□□□', 'красный круг', 'costs $x^{$', 'a b c', '□ car', 'x' * 23 + '…', '', 'café'):
        assert words in listed
    overlay_frame(grey(400, 600), boxes * 4, names, np.full(len(names), 0.5))


def test_long_names_are_shortened_by_the_room_they_take(monkeypatch):
    assert letters.printable('abcdef', 6) == 'abcdef'
    assert letters.printable('abcdefg', 6) == 'abcde…'
    assert letters.printable('ab   cdefg', 4) == 'ab…'
    monkeypatch.setattr(letters, '_known_letters', lambda: frozenset(range(0x10000)))
    assert letters.printable('红色的圆', 8) == '红色的圆'
    assert letters.printable('红色的圆圆', 8) == '红色的…'


def test_letters_come_from_another_font_where_one_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(letters, 'FAMILIES', ('DejaVu Sans', 'STIXGeneral', 'No Such Font'))
    for cached in (letters.fonts, letters._known_letters):
        cached.cache_clear()
    try:
        dejavu, stix = letters.fonts()
        letter = chr(min(stix.letters - dejavu.letters))
        assert letters.printable(letter * 3) == letter * 3
        assert letters.font_file(letter * 3) == stix.path
        assert letters.font_file('abc') == dejavu.path
        page = draw_open_ended(grey(), *FOUND[:1], [letter * 3, 'dog'], FOUND[2])
        page.save(tmp_path / 'page.png')  # matplotlib would warn of a missing letter
        assert f'{letter * 3} 0.90' in labels_of(page)
    finally:
        for cached in (letters.fonts, letters._known_letters):
            cached.cache_clear()


# Frames


def test_a_frame_is_tinted_where_its_masks_are_and_nowhere_else():
    image = np.random.default_rng(0).integers(0, 256, (100, 140, 3)).astype(np.uint8)
    before = image.copy()
    frame = overlay_frame(image, BOXES, ['cat', 'dog'], FOUND[2], MASKS.__getitem__, colours=TINTS)
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    np.testing.assert_allclose(
        frame[60, 40].astype(int), np.rint(tinted(TINTS['cat'], image[60, 40])), atol=1
    )
    np.testing.assert_allclose(
        frame[65, 110].astype(int), np.rint(tinted(TINTS['dog'], image[65, 110])), atol=1
    )
    np.testing.assert_array_equal(frame[50, 20], TINTS['cat'])  # the box's edges are inside of it
    np.testing.assert_array_equal(frame[50, 59], TINTS['cat'])
    np.testing.assert_array_equal(frame[79, 40], TINTS['cat'])
    clear = np.ones((100, 140), bool)
    for x1, y1, x2, y2 in BOXES.astype(int):
        clear[y1:y2, x1:x2] = False
        clear[y1 - 20 : y1] = False  # its label
    np.testing.assert_array_equal(frame[clear], image[clear])


def test_frames_and_pages_share_their_colours(tmp_path):
    frame = overlay_frame(grey(), *FOUND, MASKS.__getitem__).astype(int)
    page = draw_open_ended(grey(), *FOUND, MASKS.__getitem__)
    pixels = saved(page, tmp_path)
    for place, name in (((40, 60), 'cat'), ((110, 65), 'dog')):
        expected = tinted(name_colour(name, {}))
        assert near(frame, place, expected, 1, 0)
        assert near(pixels, page.picture.pixel(*place), expected, 2, 0)


def test_a_frame_of_nothing_is_a_copy():
    image = np.random.default_rng(0).integers(0, 256, (100, 140, 3)).astype(np.uint8)
    for found in ((np.zeros((0, 4)), [], np.zeros(0)), FOUND):
        frame = overlay_frame(image, *found, threshold=0.95)
        np.testing.assert_array_equal(frame, image)
        assert not np.shares_memory(frame, image)
    blank = overlay_frame(
        image, *FOUND, lambda index: np.zeros((100, 140), bool), show_boxes=False, max_objects=0
    )
    np.testing.assert_array_equal(blank, image)


def test_labels_of_a_frame_are_written_inside_and_apart():
    rng = np.random.default_rng(0)
    corners = rng.uniform([-20, -20], [600, 440], (30, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 90, (30, 2))], axis=1)
    # The ink of a label is white on each of these; a box's line is in its own colour.
    names = [f'thing {number}' for number in range(30)]
    colours = {name: (5 * number, 100, 90 - number) for number, name in enumerate(names)}
    black = np.zeros((480, 640, 3), np.uint8)
    frame = overlay_frame(black, boxes, names, np.linspace(0.9, 0.5, 30), colours=colours, show_boxes=False)
    areas = []
    for name in names:
        alone = np.flatnonzero((frame == colours[name]).all(axis=2))
        if len(alone):
            rows, columns = np.unravel_index(alone, (480, 640))
            areas.append((columns.min(), rows.min(), columns.max(), rows.max()))
            assert columns.max() - columns.min() > 60
    assert len(areas) >= 25
    for one, other in itertools.combinations(areas, 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    assert (frame.max(axis=2) > 200).sum() > 25 * 50


def test_boxes_far_outside_of_a_frame_do_no_harm():
    boxes = np.array([[-1e12, -5, 1e12, 200], [500, 500, 600, 600], [10, 10, 10, 10]])
    frame = overlay_frame(grey(), boxes, ['cat'] * 3, np.ones(3), colours=TINTS)
    assert frame.shape == (100, 140, 3)


# Bad input


def test_what_does_not_fit_together_is_refused():
    boxes, names, scores = FOUND
    for draw in (draw_open_ended, overlay_frame):
        with pytest.raises(
            ValueError, match=r'image must be RGB uint8 \[H,W,3\], but is float64 \[4, 5, 3\].'
        ):
            draw(np.zeros((4, 5, 3)), *FOUND)
        with pytest.raises(ValueError, match=r'must be \[D,4\], D and \[D\], but are \[2, 4\], 1 and \[2\].'):
            draw(grey(), boxes, names[:1], scores)
    with pytest.raises(ValueError, match=r'maps must be one an object, 2, but are 3.'):
        draw_open_ended(grey(), *FOUND, maps=np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match=r'points must be one an object, 2, but are 1.'):
        draw_open_ended(grey(), *FOUND, points=[np.zeros((1, 3))])
