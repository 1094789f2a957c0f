"""Large images are reduced in bounded memory, and results put back to their own size."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.images import LoadedImage, read_image, to_original
from atss_ext.vlsam.run_lengths import resize_run_length


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def checkers(height, width, cell):
    rows, columns = np.mgrid[:height, :width] // cell
    return ((rows + columns) % 2 * 200 + 20).astype(np.uint8)


# Runs in a process of its own, whose peak of memory Linux resets on demand (getrusage's is that of imports).
HUGE = """
import json, sys
import cv2, numpy as np
from pycocotools import mask as rle
from atss_ext.vlsam.images import read_image
from atss_ext.vlsam.run_lengths import resize_run_length

facts = {}

def peak():
    with open('/proc/self/status') as status:
        return next(int(line.split()[1]) for line in status if line.startswith('VmHWM'))

def measure(name, act):
    with open('/proc/self/clear_refs', 'w') as reset:
        reset.write('5')
    before = peak()
    facts[name] = act()
    facts[name + ' MiB'] = (peak() - before) / 1024

def read(path):
    loaded = read_image(path, max_side=1000)
    return [loaded.size, loaded.pixels.shape, loaded.scale, loaded.pixels[50::100, 50::100, 0].tolist()]

def resize():
    resized = [resize_run_length(encoded, (10_000, 10_000)) for _ in range(10)]
    return [[int(rle.area(one)) for one in resized], rle.toBbox(resized[0]).tolist(), int(small.sum())]

small = np.zeros((1000, 1000), np.uint8)
cv2.circle(small, (500, 400), 300, 1, -1)
encoded = rle.encode(np.asfortranarray(small))
measure('masks', resize)
for name in sys.argv[1:]:
    measure(name[-3:], lambda: read(name))
print(json.dumps(facts))
"""


@pytest.fixture(scope='module')
def huge(tmp_path_factory):
    """What was found of 10,000 x 10,000 pixels; as RGB of PIL such an image takes 400 MB."""
    folder = tmp_path_factory.mktemp('huge')
    board = cv2.resize(checkers(100, 100, 10), (10_000, 10_000), interpolation=cv2.INTER_NEAREST)
    assert cv2.imwrite(str(folder / 'a.jpg'), board)
    assert cv2.imwrite(str(folder / 'a.png'), board, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    command = [sys.executable, '-W', 'error::Warning:PIL', '-c', HUGE, folder / 'a.jpg', folder / 'a.png']
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# The JPEG is never there at full size; the PNG (grey, 100 MB) exactly once.
@pytest.mark.parametrize(('suffix', 'limit'), [('jpg', 60), ('png', 180)])
def test_a_huge_image_is_reduced_in_bounded_memory(huge, suffix, limit):
    size, shape, scale, cells = huge[suffix]
    assert (size, shape, scale) == ([10_000, 10_000], [1000, 1000, 3], [0.1, 0.1])
    assert cells == checkers(100, 100, 10)[5::10, 5::10].tolist()
    assert huge[f'{suffix} MiB'] < limit


def test_masks_of_a_huge_image_are_never_decoded(huge):
    """Even one would take 100 MB."""
    areas, box, small = huge['masks']
    assert areas == [100 * small] * 10
    assert box == [2000, 1000, 6010, 6010]
    assert huge['masks MiB'] < 40


@pytest.mark.parametrize(
    ('size', 'max_side', 'working'),
    [
        ((100, 60), 50, (50, 30)),
        ((101, 67), 50, (50, 33)),
        ((60, 100), 99, (59, 99)),
        ((1025, 1025), 1024, (1024, 1024)),
        ((20_000, 10), 1000, (1000, 8)),  # a ribbon keeps a usable side
        ((333, 777), 10, (8, 10)),
    ],
)
def test_sizes_of_reduced_images(size, max_side, working):
    ramp = np.linspace(0, 1, size[1], dtype=np.float32)
    array = np.rint(np.broadcast_to(ramp * 255, size)).astype(np.uint8)
    for source in (array, Image.fromarray(array)):
        loaded = read_image(source, max_side)
        assert loaded.size == size
        assert loaded.pixels.shape == (*working, 3)
        assert loaded.scale == (working[1] / size[1], working[0] / size[0])
        # A ramp stays a ramp over the same extent: no shift, no border.
        centres = (np.arange(working[1]) + 0.5) * size[1] / working[1] - 0.5
        expected = np.interp(centres, np.arange(size[1]), ramp * 255)
        inner = slice(1, -1)
        np.testing.assert_allclose(loaded.pixels[working[0] // 2, inner, 0], expected[inner], atol=1.5)


def test_reducing_in_strips_is_reducing_at_once():
    tall = np.random.default_rng(0).integers(0, 256, (9000, 1000, 3)).astype(np.uint8)  # more than one strip
    reduced = Image.fromarray(tall).reduce(9)
    expected = reduced.resize((111, 1000), Image.Resampling.BILINEAR, (0, 0, 1000 / 9, 1000))
    np.testing.assert_array_equal(read_image(tall, 1000).pixels, np.array(expected))


@pytest.mark.parametrize('max_side', [7, 0, -1, 8.0, True, None])
def test_bad_limits_are_refused(max_side):
    with pytest.raises(ValueError, match='max_side must be an integer of at least 8, but is'):
        read_image(picture(20, 30), max_side)


def test_an_image_loaded_elsewhere_keeps_the_size_of_its_original():
    loaded = LoadedImage.of(picture(60, 90), (600, 900), max_side=45)
    assert loaded.pixels.shape == (30, 45, 3)
    assert loaded.size == (600, 900)
    assert LoadedImage.of(picture(60, 90)).size == (60, 90)


def encode(mask):
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))


def nearest(mask, size):
    """The oracle: every new pixel takes the value under its centre."""
    rows = ((np.arange(size[0]) + 0.5) * mask.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * mask.shape[1] / size[1]).astype(int)
    return mask[rows][:, columns]


@pytest.mark.parametrize(
    'size', [(20, 30), (40, 60), (61, 30), (20, 97), (203, 311), (7, 11), (1, 1), (13, 200)]
)
def test_masks_change_their_size_as_pictures_do(size):
    rng = np.random.default_rng(0)
    masks = [rng.random((20, 30)) < share for share in (0.02, 0.5, 0.98)]
    masks += [np.zeros((20, 30), bool), np.ones((20, 30), bool), np.eye(20, 30, dtype=bool)]
    rows = np.tile(np.arange(20)[:, None], 30)
    masks += [rows < 3, rows >= 17]  # their runs touch from column to column
    for mask in masks:
        resized = resize_run_length(encode(mask), size)
        assert resized == encode(nearest(mask, size))  # the very bytes that pycocotools writes


def test_results_go_back_to_the_original():
    loaded = read_image(picture(400, 600), max_side=150)
    masks = np.random.default_rng(0).random((2, 100, 150)) < 0.3
    found = Detections(
        size=(100, 150),
        boxes=np.array([[10, 20, 30, 40], [0, 0, 150, 100]], np.float32),
        scores=np.array([0.9, 0.5], np.float32),
        names=['a', 'b'],
        run_lengths=[encode(mask) for mask in masks],
        parts={'iou': np.array([0.8, 0.7], np.float32)},
        maps=np.ones((2, 4, 4), np.float32),
        answers=[{'view': 'whole', 'question': '?', 'text': 'a b'}],
    )
    back = to_original(found, loaded)
    assert back.size == (400, 600)
    assert back.boxes.tolist() == [[40, 80, 120, 160], [0, 0, 600, 400]]
    assert back.boxes.dtype == np.float32
    np.testing.assert_array_equal(back.masks, np.stack([nearest(mask, (400, 600)) for mask in masks]))
    assert back.names == ['a', 'b']
    assert back.scores is found.scores
    assert back.maps is found.maps
    assert back.parts is found.parts
    assert back.answers is found.answers
    whole = read_image(picture(100, 150))
    assert to_original(found, whole) is found
    with pytest.raises(ValueError, match=r'detections must be of size \[400, 600\], but are of \[100, 150\]'):
        to_original(found, read_image(picture(400, 600)))
