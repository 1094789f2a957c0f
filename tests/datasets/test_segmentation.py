"""Segmentations against their images: what can be drawn passes, what kills or deceives a scorer is named."""

import numpy as np
import pytest
from pycocotools import mask as pycoco

from atss_ext.datasets.annotation_checks import check_annotations
from atss_ext.datasets.segmentation import FAR, MAX_SIDE, rle_lengths, segmentation_fault, segmentation_faults

SIZE = (4, 6)
NAN, INF = float('nan'), float('inf')
TRIANGLE = [0, 0, 5, 0, 5, 3]


def rle(counts, size=SIZE):
    return {'size': list(size), 'counts': counts}


SOUND = {
    'a polygon': [TRIANGLE],
    'two polygons': [TRIANGLE, [0.5, 0.5, 2.25, 1, 1, 3]],
    'a polygon at the limit': [[60, 0, -60, 1, 2, 2]],
    'runs': rle([3, 20, 1]),
    'a run from the first pixel on': rle([0, 24]),
    'nothing': rle([24]),
    'a tuple as the size': {'size': SIZE, 'counts': [24]},
}

FAULTS = {
    'none': (None, 'segment-form', 'has the segmentation None; write'),
    'an empty list': ([], 'segment-form', r'has the segmentation \[\]'),
    'a bare polygon': (TRIANGLE, 'segment-form', 'write a list of polygons'),
    'no counts': ({'size': [4, 6]}, 'segment-form', 'without size and counts'),
    'an odd polygon': ([[1, 2, 3, 4, 5, 6, 7]], 'polygon-odd', 'of 7 numbers'),
    'four numbers': ([TRIANGLE, [1, 2, 3, 4]], 'polygon-short', r'\[1, 2, 3, 4\], which is less than three'),
    'texts': ([['a', 'b', 'c', 'd', 'e', 'f']], 'polygon-number', "with 'a', which is no finite number"),
    'a truth': ([[1, 2, 3, 4, 5, True]], 'polygon-number', 'with True'),
    'nan at the end': ([[1, 2, 3, 4, 5, NAN]], 'polygon-number', 'with nan'),
    'nan at the start': ([[NAN, 2, 3, 4, 5, 6]], 'polygon-number', 'with nan'),
    'nan alone': ([[NAN] * 6], 'polygon-number', 'with nan'),
    'nan before a giant': ([[1, NAN, 10**400, 4, 5, 6]], 'polygon-number', 'with nan'),
    'infinite': ([[1, 2, 3, 4, 5, -INF]], 'polygon-number', 'with -inf'),
    'huge': ([[1e12, 0, 1e12, 1e12, 0, 0]], 'polygon-far', r'1000000000000\.0, but its image is 4 high'),
    'just too far': ([[0, 0, -60.5, 1, 2, 2]], 'polygon-far', r'with -60\.5, but its image'),
    'a zigzag': ([[-60, -60, 60, 60] * 20_000], 'polygon-long', 'of 4800000 pixels, of which 4194304 are'),
    'two zigzags': ([[-60, 0, 60, 0] * 10_000] * 2, 'polygon-long', 'has polygons with outlines of 4800000'),
    'beyond floats': ([[1, 2, 3, 4, 5, 10**400]], 'polygon-far', r'with 1000.*000, but its image'),
    'another size': (rle([4], (2, 2)), 'rle-size', r'of size \[2, 2\], but its image is 4 high and 6 wide'),
    'sides exchanged': (rle([24], (6, 4)), 'rle-size', r'of size \[6, 4\]'),
    'a text in the size': (rle([24], ('a', 6)), 'rle-size', r"of size \['a', 6\]"),
    'no size': ({'counts': [24]}, 'rle-size', 'of size None'),
    'too many pixels': (rle([0, 48]), 'rle-counts', 'of 48 pixels, but its image has 24'),
    'too few pixels': (rle([5, 5]), 'rle-counts', 'of 10 pixels'),
    'no runs': (rle([]), 'rle-counts', 'of 0 pixels'),
    'a negative run': (rle([-5, 29]), 'rle-counts', 'with -5, which is negative'),
    'a run that is a text': (rle(['a']), 'rle-counts', "with 'a', which is no whole number"),
    'a run that is None': (rle([None, 24]), 'rle-counts', 'with None, which is no whole number'),
    'a broken run': (rle([0.5, 23.5]), 'rle-counts', r'with 0\.5'),
    'garbage': (rle('zz!~'), 'rle-counts', r"'zz!~', which cannot be read \(a character that is no run"),
    'a text that is cut off': (rle('P'), 'rle-counts', 'the text ends within a number'),
    'a run of 40 bits': (rle('PPPPPPP0'), 'rle-counts', 'a number of more than 35 bits'),
    'other letters': (rle('€'), 'rle-counts', 'cannot be read'),
    'an empty text': (rle(''), 'rle-counts', 'of 0 pixels'),
    'a text of -16 pixels and 40': (rle('@X1'), 'rle-counts', 'with -16, which is negative'),
}  # fmt: skip


@pytest.mark.parametrize('name', SOUND)
def test_sound_ones_pass(name):
    assert segmentation_fault(SOUND[name], SIZE) is None
    assert list(segmentation_faults([SOUND[name]], [SIZE])) == []


@pytest.mark.parametrize('name', FAULTS)
def test_faults_are_named(name):
    segmentation, code, sentence = FAULTS[name]
    fault = segmentation_fault(segmentation, SIZE)
    assert fault.code == code
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(fault.text)
    # Among sound ones that are decoded together.
    masks = [pycoco.encode(np.ones(SIZE, np.uint8, order='F'))] * 3
    assert list(segmentation_faults([*masks, segmentation, *masks], [SIZE] * 7)) == [(3, fault)]


def test_run_lengths_decoded_together_are_those_of_pycocotools():
    rng = np.random.default_rng(5)
    masks, sizes = [], []
    for count in range(300):
        height, width = rng.integers(1, 200, 2).tolist() if count % 3 else rng.integers(1, 5, 2).tolist()
        mask = rng.random((height, width)) < rng.choice([0, 0.01, 0.5, 1])
        mask[: height // 2] = count % 2
        masks.append(pycoco.encode(np.asfortranarray(mask, np.uint8)))
        sizes.append((height, width))
    assert list(segmentation_faults(masks, sizes)) == []
    for one, size in zip(masks, sizes, strict=True):
        runs = rle_lengths(one['counts'])
        plain = pycoco.frPyObjects({'size': list(size), 'counts': runs.tolist()}, *size)
        assert plain['counts'] == one['counts']
    # One pixel less in one of them: only that one is named.
    runs = rle_lengths(masks[7]['counts']).tolist()
    runs[-1] -= 1
    less = pycoco.frPyObjects({'size': [*sizes[7]], 'counts': runs}, *sizes[7])
    masks[7] = {'size': [*sizes[7]], 'counts': less['counts'].decode()}
    assert [place for place, _ in segmentation_faults(masks, sizes)] == [7]


def test_what_passes_is_drawn_as_pycocotools_draws_it():
    """The farthest corners that there are: a little more ends the process."""
    size = (2, MAX_SIDE)
    far = [FAR * MAX_SIDE - 3, 0, FAR * MAX_SIDE - 1, 0, FAR * MAX_SIDE - 1, 2]
    assert segmentation_fault([far], size) is None
    assert pycoco.area(pycoco.frPyObjects([far], *size)).tolist() == [0]
    edge = [MAX_SIDE - 3, 0, MAX_SIDE, 0, MAX_SIDE, 2, MAX_SIDE - 3, 2]
    assert segmentation_fault([edge], size) is None
    assert pycoco.area(pycoco.frPyObjects([edge], *size)).tolist() == [6]


def test_outlines_are_measured_as_pycocotools_draws_them():
    # Sides of 2048 pixels, 512 times around the square: the limit.
    square = [0, 0, 2048, 0, 2048, 2048, 0, 2048]
    assert segmentation_fault([square * 512], (2048, 2048)) is None
    assert segmentation_fault([square * 512, TRIANGLE], (2048, 2048)).text.startswith(
        f'has polygons with outlines of {2**22 + 13} pixels'
    )
    # Many points on a short outline.
    angles = np.linspace(0, 2 * np.pi, 10_000)
    circle = (1000 + 900 * np.column_stack([np.cos(angles), np.sin(angles)])).ravel().tolist()
    assert segmentation_fault([circle], (2000, 2000)) is None


def test_images_too_long_for_polygons():
    fault = segmentation_fault([[0, 0, 2e9, 0, 2e9, 1]], (1, 2**31 - 1))
    assert (fault.code, 'no image is as large' in fault.text) == ('polygon-far', True)


@pytest.mark.parametrize(
    ('given', 'code'), [([[1, 2, 3, 4, 5, 1e16]], 'polygon-far'), (rle([5]), 'rle-counts')]
)
def test_without_a_size_of_the_image(given, code):
    assert segmentation_fault(given, None).code == code
    assert segmentation_fault([[0, 0, 1e9, 0, 5, 3]], None) is None
    assert segmentation_fault(rle([24]), None) is None


def test_the_checker_reports_huge_polygons():
    content = {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 4, 'width': 6}],
        'categories': [{'id': 1, 'name': 'a'}],
        'annotations': [
            {'id': number, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, number, 3],
             'area': 3, 'iscrowd': 0, 'segmentation': polygon}
            for number, polygon in enumerate([[TRIANGLE], [[1e12, 0, 1e12, 1e12, 0, 0]]], 1)
        ],
    }  # fmt: skip
    (finding,) = check_annotations(content).findings
    assert (finding.code, finding.severity, finding.examples) == ('polygon-far', 'error', (2,))
