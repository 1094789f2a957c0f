"""A sheet of images: truth, finds and attention stand where they belong, in the colours of their names."""

import cv2
import numpy as np
import pytest

from atss_ext.visualization.open_ended_sheet import SheetRow, draw_open_ended_sheet
from atss_ext.visualization.overlay import heat_over

GREY = (120, 120, 120)
TINTS = {'cat': (230, 30, 30), 'dog': (30, 60, 230)}


def row(found=1):
    image = np.full((40, 80, 3), GREY, np.uint8)
    masks = np.zeros((found, 40, 80), bool)
    masks[:, 10:30, 50:70] = True
    attention = np.zeros((found, 4, 8))
    attention[:, 2, 6] = 1
    return SheetRow(
        'one',
        image,
        np.array([[10.0, 10, 30, 30]]),
        ['cat'],
        np.array([[50.0, 10, 70, 30]] * found).reshape(-1, 4),
        masks,
        ['dog'] * found,
        np.full(found, 0.9),
        attention,
    )


def pixels(path):
    return cv2.imread(str(path))[..., ::-1].astype(int)


def near(picture, place, colour, tolerance=60):
    column, line = place
    patch = picture[line - 3 : line + 4, column - 3 : column + 4]
    return bool((np.abs(patch - colour).max(axis=2) <= tolerance).any())


def test_each_picture_shows_its_own(tmp_path):
    path = tmp_path / 'sheet.png'
    ((truth, found, attention),) = draw_open_ended_sheet(path, [row()], 'title', colours=TINTS, width=320)
    page = pixels(path)
    # The true cat is outlined where it is, and there is no dog; the dog's mask is tinted among the finds.
    assert near(page, truth.pixel(10, 20), TINTS['cat'])
    assert not near(page, truth.pixel(50, 20), TINTS['dog'])
    column, line = found.pixel(60, 24)
    tinted = np.array(GREY) * 0.58 + np.array(TINTS['dog']) * 0.42
    assert np.abs(page[line, column] - tinted).max() < 12
    assert not near(page, found.pixel(10, 20), TINTS['cat'])
    # The dot lies at the centre of the highest cell, (6.5, 2.5) of 8 x 4.
    assert near(page, attention.pixel(65, 25), (57, 211, 83), 12)
    assert not near(page, attention.pixel(25, 25), (57, 211, 83), 60)


def test_so_many_maps_as_there_are_finds_but_no_more_than_asked(tmp_path):
    places = draw_open_ended_sheet(tmp_path / 'sheet.png', [row(0), row(2), row(5)], 'title')
    assert [len(panels) for panels in places] == [2, 4, 5]
    assert places[0][0].top < places[1][0].top < places[2][0].top


def test_heat_is_clear_where_there_is_no_attention():
    image = np.full((8, 16, 3), 200, np.uint8)
    heat = heat_over(image, np.array([[0.0, 0, 0, 1]]))
    np.testing.assert_array_equal(heat[4, 0], [160, 160, 160])  # the faded image, 60 + 200 / 2
    assert heat[4, 15].tolist() == [int(160 * 0.15 + v * 0.85) for v in (252, 255, 164)]
    np.testing.assert_array_equal(heat_over(image, np.ones((2, 2))), np.full((8, 16, 3), 160))


def test_no_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match='rows is empty'):
        draw_open_ended_sheet(tmp_path / 'sheet.png', [], 'title')
    with pytest.raises(ValueError, match='must be RGB uint8'):
        draw_open_ended_sheet(tmp_path / 'sheet.png', [row()._replace(image=np.zeros((4, 4)))], 'title')
