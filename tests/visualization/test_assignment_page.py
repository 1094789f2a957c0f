import cv2
import numpy as np
import pytest

from atss_ext.visualization.assignment import draw_assignment, gt_colour

SIZES = [8 * 6, 4 * 3]


def grid(stride, columns, rows, side):
    x, y = np.meshgrid((np.arange(columns) + 0.5) * stride, (np.arange(rows) + 0.5) * stride)
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.concatenate([centres - side / 2, centres + side / 2], axis=1)


PRIORS = np.concatenate([grid(16, 8, 6, 32), grid(32, 4, 3, 64)])
BOXES = np.array([[10.0, 10, 60, 60], [68, 28, 116, 92]])
NAMES = ['red circle', 'blue square']


@pytest.fixture
def scene():
    image = np.full((96, 128, 3), 200, dtype=np.uint8)
    assigned = np.zeros(60, dtype=np.int64)
    assigned[[9, 10, 17]] = 1  # level 0
    assigned[48 + 6] = 2  # level 1
    assigned[5] = -1
    return image, assigned


def pixel(page, panel, point):
    column, row = panel.pixel(*point)
    return page[row, column]


def centre(number):
    return (PRIORS[number, :2] + PRIORS[number, 2:]) / 2


def test_every_positive_has_its_gts_colour_on_its_level_alone(tmp_path, scene):
    image, assigned = scene
    panels = draw_assignment(tmp_path / 'page.png', image, PRIORS, SIZES, assigned, BOXES, NAMES)
    page = cv2.imread(str(tmp_path / 'page.png'))[..., ::-1].astype(int)
    assert len(panels) == 3
    for number in range(60):
        level, owner = (0 if number < 48 else 1), assigned[number]
        for panel_level, panel in enumerate(panels[1:]):
            shown = [np.abs(pixel(page, panel, centre(number)) - gt_colour(gt)).max() < 12 for gt in (0, 1)]
            expected = [panel_level == level and owner == gt + 1 for gt in (0, 1)]
            assert shown == expected, (number, panel_level)


def test_negatives_are_grey_dots_and_ignored_ones_black_crosses(tmp_path, scene):
    image, assigned = scene
    panels = draw_assignment(tmp_path / 'page.png', image, PRIORS, SIZES, assigned, BOXES, NAMES)
    page = cv2.imread(str(tmp_path / 'page.png'))[..., ::-1].astype(int)
    background = pixel(page, panels[1], centre(5) + 7)
    assert background.min() > 200  # the image, faded
    negative = pixel(page, panels[1], centre(30))
    assert np.ptp(negative) < 20
    assert negative.max() < background.min() - 25
    ignored = pixel(page, panels[1], centre(5))
    assert ignored.max() < 90


def test_gts_are_drawn_in_their_colours_on_every_panel(tmp_path, scene):
    image, assigned = scene
    panels = draw_assignment(tmp_path / 'page.png', image, PRIORS, SIZES, assigned, BOXES, NAMES)
    page = cv2.imread(str(tmp_path / 'page.png'))[..., ::-1].astype(int)
    for panel in panels:
        for gt, point in ((0, (60, 44)), (1, (116, 52))):
            column, row = panel.pixel(*point)
            patch = page[row, column - 2 : column + 3]
            assert (np.abs(patch - gt_colour(gt)).max(axis=1) < 40).any()


def texts(monkeypatch):
    from atss_ext.visualization import page

    written = []
    original = page.Page.text
    monkeypatch.setattr(page.Page, 'text', lambda self, x, y, words, *a, **k: (
        written.append((round(y), x, words)), original(self, x, y, words, *a, **k)))  # fmt: skip
    return written


def test_captions_and_table_count_the_positives(tmp_path, scene, monkeypatch):
    image, assigned = scene
    written = texts(monkeypatch)
    draw_assignment(tmp_path / 'page.png', image, PRIORS, SIZES, assigned, BOXES, NAMES)
    words = [word for _, _, word in written]
    assert 'priors of 32 x 32 px: 3 positive of 48' in words
    assert 'priors of 64 x 64 px: 1 positive of 12' in words
    assert any(word.startswith('2 objects, 4 positives among 60 priors.') for word in words)
    rows = {}
    for y, x, word in written:
        rows.setdefault(y, []).append((x, word))
    table = [
        [word for _, word in sorted(row)][1:] for row in rows.values() if any(w in NAMES for _, w in row)
    ]
    assert table == [['red circle', '50 x 50', '3', '·', '3'], ['blue square', '48 x 64', '·', '1', '1']]


def test_an_image_without_gts_and_a_level_without_priors(tmp_path, scene):
    image, _ = scene
    panels = draw_assignment(
        tmp_path / 'page.png', image, PRIORS, [60, 0], np.zeros(60, dtype=int), np.zeros((0, 4)), []
    )
    assert len(panels) == 3
    assert cv2.imread(str(tmp_path / 'page.png')) is not None


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (
            {'level_sizes': [48, 13]},
            r'level_sizes \[48, 13\] must add up to the priors, but those are \[60, 4\]',
        ),
        (
            {'assigned': np.zeros(59, dtype=int)},
            r'assigned must hold one number a prior, \[60\], but is \[59\]',
        ),
        ({'assigned': np.full(60, 3)}, 'between -1 and the number of gts, 2, but reaches from 3 to 3'),
        ({'names': ['one']}, 'boxes and names must be equally many, but are 2 and 1'),
        (
            {'image': np.zeros((9, 9), dtype=np.uint8)},
            r'image must be RGB uint8 \[H,W,3\], but is uint8 \[9, 9\]',
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, scene, change, sentence):
    arguments = {
        'image': scene[0],
        'priors': PRIORS,
        'level_sizes': SIZES,
        'assigned': scene[1],
        'boxes': BOXES,
        'names': NAMES,
        **change,
    }
    with pytest.raises(ValueError, match=sentence):
        draw_assignment(tmp_path / 'page.png', **arguments)
