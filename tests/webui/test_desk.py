"""What stands behind the tabs, against mmdet's own API, the pipeline, mmdet's assigner and literal values."""

import json
import os
import re
import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.models.task_modules import AnchorGenerator
from mmdet.models.task_modules import ATSSAssigner as MMDetATSSAssigner
from mmengine.structures import InstanceData
from pycocotools import mask as rle
from pycocotools.coco import COCO

from atss_ext.cli.errors import explain
from atss_ext.datasets.checks import DataError
from atss_ext.datasets.shapes import ShapesSpec, draw_scene
from atss_ext.errors import UserError
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.loading import load
from atss_ext.vlsam.world import scene_of
from atss_ext.webui import Limits, Offer, assigning
from atss_ext.webui.desk import EXAMPLES, Desk
from atss_ext.webui.discovering import pictures_by_name
from atss_ext.webui.pictures import picture_of_boxes, picture_of_masks
from atss_ext.webui.uploads import read_upload

REPO = Path(__file__).resolve().parents[2]
WORLD = str(REPO / 'configs/vlsam/vlsam_world.py')


@pytest.fixture(scope='module')
def desk(shelf):
    weights = [str(shelf.weights), str(shelf.other_weights)]
    configs = [str(shelf.config)]
    offer = Offer.of_files(configs, weights, [WORLD], [*configs, str(shelf.iou_config)])
    desk = Desk(offer, Limits(megabytes=1, megapixels=2), 'cpu')
    yield desk
    desk.outbox.close()


def said(act) -> str:
    """The sentence of what is refused."""
    with pytest.raises(Exception) as caught:
        act()
    sentence = explain(caught.value)
    assert sentence is not None, caught.value
    return sentence


# ------------------------------------------------------------------------------------------------ tab 1


def test_detections_are_those_of_mmdets_api(desk, shelf):
    shown = desk.detect(shelf.image(), 'tiny.py', 'tiny.pth', 0.0)
    model = init_detector(str(shelf.config), str(shelf.weights), device='cpu')
    expected = inference_detector(model, shelf.image()).pred_instances
    assert len(expected) == 5
    order = expected.scores.argsort(descending=True)
    names = [('box', 'disc')[label] for label in expected.labels[order].tolist()]
    assert [row[0] for row in shown.rows] == names
    assert [row[1] for row in shown.rows] == pytest.approx(expected.scores[order].tolist(), abs=6e-4)
    np.testing.assert_allclose([row[2:] for row in shown.rows], expected.bboxes[order], atol=0.06)
    results = json.loads(Path(shown.file).read_text())
    assert [one['category_id'] for one in results] == [{'box': 17, 'disc': 4}[name] for name in names]
    assert [one['category_name'] for one in results] == names
    corners = expected.bboxes[order]
    sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    np.testing.assert_allclose([one['bbox'] for one in results], sides, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose([one['score'] for one in results], expected.scores[order], rtol=1e-6)
    assert len(COCO(str(shelf.root / 'val.json')).loadRes(shown.file).anns) == 5
    assert Path(shown.file).name == 'val_0.results.json'


def test_a_threshold_leaves_out_what_is_below(desk, shelf):
    every = desk.detect(shelf.image(), 'tiny.py', 'tiny.pth', 0.0)
    middle = (every.rows[1][1] + every.rows[2][1]) / 2
    shown = desk.detect(shelf.image(), 'tiny.py', 'tiny.pth', middle)
    assert shown.rows == every.rows[:2]
    assert len(json.loads(Path(shown.file).read_text())) == 2
    assert shown.sentence.startswith(f'2 objects with a score of {middle:g} or more: ')
    nothing = desk.detect(shelf.image(), 'tiny.py', 'tiny.pth', 1.0)
    assert (nothing.rows, json.loads(Path(nothing.file).read_text())) == ([], [])
    assert nothing.sentence == 'Nothing has a score of 1 or more; a lower threshold may show more.'


def test_where_nothing_is_found_at_all_no_lower_threshold_is_advised(desk, tmp_path):
    cv2.imwrite(str(tmp_path / 'black.png'), np.zeros((64, 64, 3), np.uint8))
    shown = desk.discover(str(tmp_path / 'black.png'), 'vlsam_world.py', 'Quick', '', 0.0)
    assert shown.rows == []
    assert shown.sentence == 'Nothing was found, at any score.'


def test_boxes_are_drawn_where_they_are():
    image = np.full((64, 64, 3), 90, np.uint8)
    picture = picture_of_boxes(
        image, np.array([[16, 24, 48, 56]], np.float32), ['red thing'], np.array([0.9])
    )
    scale = picture.shape[0] / 64
    assert scale == 560 / 64
    red = np.abs(picture.astype(int) - (214, 38, 40)).max(axis=2) < 8
    left, right, bottom = (round(side * scale) for side in (16, 48, 56))
    middle = round(40 * scale)
    assert red[middle, left]
    assert red[middle, right - 1]
    assert red[bottom - 1, (left + right) // 2]
    assert not red[middle, left + 8 : right - 8].any()
    assert not red[: round(24 * scale) - 30].any()


def test_a_checkpoint_of_another_model_is_refused(desk, shelf):
    sentence = said(lambda: desk.detect(shelf.image(), 'tiny.py', 'other.pth', 0.3))
    assert re.search(r'other\.pth is not of this config: \d+ of the \d+ tensors of the model match', sentence)
    assert "have another shape there (first 'bbox_head.atss_cls.weight'" in sentence
    assert str(shelf.root) not in sentence


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ([1], 'holds a list instead of weights'),
        ({'state_dict': [1]}, 'holds no state_dict of tensors (it is a list)'),
        ({'state_dict': {7: torch.ones(1)}}, 'holds no state_dict of tensors (7 is no name)'),
        ({'a': torch.ones(1), 'b': 5}, "holds no state_dict of tensors ('b' is no tensor)"),
        (
            {'state_dict': {'a': torch.ones(1)}, 'meta': {'dataset_meta': {'classes': 5}}},
            'has class names that cannot be read (classes is a int)',
        ),
    ],
)
def test_what_a_stranger_wrote_is_refused(shelf, tmp_path, content, sentence):
    torch.save(content, tmp_path / 'foreign.pth')
    desk = Desk(Offer.of_files([str(shelf.config)], [str(tmp_path / 'foreign.pth')]), device='cpu')
    refusal = said(lambda: desk.detect(shelf.image(), 'tiny.py', 'foreign.pth', 0.3))
    assert refusal.startswith(f'checkpoint foreign.pth {sentence}')


def test_weights_without_counters_of_batches_are_whole(desk, shelf, tmp_path):
    content = torch.load(shelf.weights)
    state = {
        f'module.{key}': value for key, value in content['state_dict'].items() if 'num_batches' not in key
    }
    assert len(state) < len(content['state_dict'])
    torch.save({**content, 'state_dict': state}, tmp_path / 'old.pth')
    old = Desk(Offer.of_files([str(shelf.config)], [str(tmp_path / 'old.pth')]), device='cpu')
    rows = old.detect(shelf.image(), 'tiny.py', 'old.pth', 0.0).rows
    assert len(rows) == 5
    assert rows == desk.detect(shelf.image(), 'tiny.py', 'tiny.pth', 0.0).rows


def test_no_sentence_says_where_the_server_keeps_its_files(shelf, tmp_path):
    for name in ('gone.py', 'gone.pth'):
        (tmp_path / name).write_text('model = dict()')
    configs = [str(tmp_path / 'gone.py')]
    desk = Desk(Offer.of_files(configs, [str(tmp_path / 'gone.pth')], configs, configs), device='cpu')
    acts = {
        'detect': lambda: desk.detect(shelf.image(), 'gone.py', 'gone.pth', 0.3),
        'discover': lambda: desk.discover(shelf.image(), 'gone.py', 'Quick', '', 0.3),
        'assign': lambda: desk.assign(shelf.image(), '1 1 20 20', None, 'gone.py', None),
    }
    for gone in (False, True):
        for act in acts.values():
            refusal = said(act)
            assert 'gone.py' in refusal
            assert str(tmp_path) not in refusal
        (tmp_path / 'gone.py').unlink(missing_ok=gone)
    (tmp_path / 'gone.pth').unlink()
    refusal = said(acts['detect'])
    assert refusal.startswith('checkpoint gone.pth is there no more')


class Payload:
    """What a checkpoint of a stranger would do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(shelf, tmp_path):
    marker = tmp_path / 'ran'
    torch.save({'state_dict': {}, 'meta': Payload(marker)}, tmp_path / 'evil.pth')
    desk = Desk(Offer.of_files([str(shelf.config)], [str(tmp_path / 'evil.pth')]), device='cpu')
    sentence = said(lambda: desk.detect(shelf.image(), 'tiny.py', 'evil.pth', 0.3))
    assert 'mkdir' in sentence
    assert 'could run code' in sentence
    assert not marker.exists()
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert marker.exists()  # it would have


@pytest.mark.parametrize('content', [b'', b'no checkpoint', b'PK\x03\x04 cut off'])
def test_a_damaged_checkpoint_is_refused(shelf, tmp_path, content):
    (tmp_path / 'bad.pth').write_bytes(content)
    desk = Desk(Offer.of_files([str(shelf.config)], [str(tmp_path / 'bad.pth')]), device='cpu')
    sentence = said(lambda: desk.detect(shelf.image(), 'tiny.py', 'bad.pth', 0.3))
    assert 'bad.pth cannot be read' in sentence
    assert str(tmp_path) not in sentence


@pytest.mark.parametrize(
    ('config', 'checkpoint', 'sentence'),
    [
        ('tiny.pz', 'tiny.pth', "config 'tiny.pz' is not offered here (did you mean 'tiny.py'?)"),
        ('/etc/passwd', 'tiny.pth', "config '/etc/passwd' is not offered here"),
        ('tiny.py', '../tiny.pth', "checkpoint '../tiny.pth' is not offered here"),
        (None, 'tiny.pth', 'no config is chosen'),
        ('tiny.py', '', 'no checkpoint is chosen'),
    ],
)
def test_only_what_is_offered_can_be_chosen(desk, shelf, config, checkpoint, sentence):
    assert sentence in said(lambda: desk.detect(shelf.image(), config, checkpoint, 0.3))


def test_a_whole_path_is_no_name_even_of_what_is_offered(desk, shelf):
    sentence = said(lambda: desk.detect(shelf.image(), str(shelf.config), 'tiny.pth', 0.3))
    assert 'is not offered here' in sentence


@pytest.mark.parametrize('threshold', [-0.1, 1.5, float('nan'), 'much', True, None])
def test_a_threshold_out_of_range_is_refused(desk, shelf, threshold):
    sentence = said(lambda: desk.detect(shelf.image(), 'tiny.py', 'tiny.pth', threshold))
    assert 'must be from 0 to 1' in sentence


# ---------------------------------------------------------------------------------------------- uploads


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG's head; whoever decoded it would ask for memory first."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')
    )


UPLOADS = {
    'rubbish.png': (b'\x89PNG\r\n\x1a\nrubbish', 'image rubbish.png is no image of a known format'),
    'text.png': (b'hello', 'image text.png is no image of a known format'),
    'empty.png': (b'', 'image empty.png is empty'),
    'huge.png': (png_that_claims(30_000, 30_000), 'claims 30000 x 30000 pixels, more than 2 million'),
    'page.svg': (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', 'is no image'),
    'long.png': (bytes(2**20 + 1), 'long.png has 1 MB; this page takes up to 1 MB'),
}


@pytest.mark.parametrize('name', UPLOADS)
@pytest.mark.parametrize('tab', ['detect', 'discover', 'assign'])
def test_an_upload_that_is_no_image_or_too_large_is_refused(desk, tmp_path, name, tab):
    content, sentence = UPLOADS[name]
    path = tmp_path / name
    path.write_bytes(content)
    chosen = {
        'detect': ('tiny.py', 'tiny.pth', 0.3),
        'discover': ('vlsam_world.py', 'Quick', '', 0.3),
        'assign': ('1 1 20 20', None, 'tiny.py', None),
    }[tab]
    refusal = said(lambda: getattr(desk, tab)(str(path), *chosen))
    assert sentence in refusal
    assert str(tmp_path) not in refusal  # where the server keeps it is no one's business


def test_a_cut_off_jpeg_is_refused(desk, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    encoded = cv2.imencode('.jpg', picture)[1].tobytes()
    (tmp_path / 'cut.jpg').write_bytes(encoded[: len(encoded) // 2])
    sentence = said(lambda: desk.detect(str(tmp_path / 'cut.jpg'), 'tiny.py', 'tiny.pth', 0.3))
    assert sentence.startswith('image cut.jpg ')


def test_nothing_sent_is_said(desk):
    assert 'no image is there yet' in said(lambda: desk.detect(None, 'tiny.py', 'tiny.pth', 0.3))


# ------------------------------------------------------------------------------------------------ tab 2


@pytest.fixture(scope='module')
def discovered(desk):
    upload = desk.small_example(0)
    return upload, desk.discover(upload, 'vlsam_world.py', 'Quick', '', 0.3)


def test_an_example_is_discovered_by_the_shipped_models(discovered):
    _, shown = discovered
    scene = scene_of('held-out', 0)
    assert sorted(scene.names) == ['blue circle', 'blue circle', 'green triangle']
    assert sorted(row[0] for row in shown.rows) == sorted(scene.names)
    assert shown.sentence == '3 objects with a score of 0.3 or more: blue circle (2), green triangle (1).'
    for row in shown.rows:  # each lies on an object of its name
        same = [box for box, name in zip(scene.boxes, scene.names, strict=True) if name == row[0]]
        assert min(np.abs(np.array(row[3:]) - box).max() for box in same) <= 3
    assert [answer[0] for answer in shown.answers] == ['whole']


def test_the_json_holds_the_masks_of_the_pipeline(discovered):
    upload, shown = discovered
    pipeline = load(WORLD, questions='single', corners=False, score_thr=0.3)
    expected = pipeline(upload)
    content = json.loads(Path(shown.file).read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    assert [names[one['category_id']] for one in content['annotations']] == expected.names
    assert content['images'] == [{'id': 1, 'file_name': 'example_0.png', 'width': 64, 'height': 64}]
    for index, one in enumerate(content['annotations']):
        np.testing.assert_array_equal(rle.decode(one['segmentation']), expected.mask(index))
        assert one['score'] == pytest.approx(float(expected.scores[index]))


def test_every_name_has_a_picture_of_its_attention_and_of_its_masks(discovered):
    _, shown = discovered
    captions = [caption for _, caption in shown.pictures]
    first = shown.rows[0][0]
    assert first == 'blue circle'
    assert captions == [
        'attention: blue circle',
        '2 masks: blue circle',
        'attention: green triangle',
        'mask: green triangle',
    ]
    assert all(image.shape == (560, 560, 3) for image, _ in shown.pictures)


def two_masks() -> Detections:
    masks = np.zeros((2, 56, 56), np.uint8)
    masks[0, 8:24, 8:24] = masks[1, 32:48, 32:48] = 1
    maps = np.zeros((2, 7, 7), np.float32)
    maps[0, 1, 5] = maps[1, 5, 1] = 1
    return Detections(
        size=(56, 56),
        boxes=np.array([[8, 8, 24, 24], [32, 32, 48, 48]], np.float32),
        scores=np.array([0.9, 0.8], np.float32),
        names=['left', 'right'],
        run_lengths=[rle.encode(np.asfortranarray(mask)) for mask in masks],
        maps=maps,
    )


def test_a_picture_of_masks_is_bright_there_and_dark_elsewhere():
    image = np.full((56, 56, 3), 200, np.uint8)
    picture = picture_of_masks(image, two_masks(), [1])
    assert (picture[340:460, 340:460] == 200).all()
    assert (picture[:300] == 60).all()  # the other's mask too
    assert (picture[:, :300] == 60).all()


def test_a_picture_of_attention_is_that_of_its_name():
    image = np.full((56, 56, 3), 100, np.uint8)
    pictures = dict((caption, picture) for picture, caption in pictures_by_name(image, two_masks()))
    for caption, (row, column) in {'attention: left': (1, 5), 'attention: right': (5, 1)}.items():
        warm = pictures[caption].astype(int)[..., 0] - pictures[caption][..., 2]
        peak = np.unravel_index(warm.argmax(), warm.shape)
        assert np.abs(np.array(peak) / 80 - (row + 0.5, column + 0.5)).max() < 1


def test_another_question_is_asked_and_too_long_a_one_refused(desk):
    upload = desk.small_example(0)
    shown = desk.discover(upload, 'vlsam_world.py', 'Quick', ' What is in the image? ', 0.3)
    assert [answer[1] for answer in shown.answers] == ['What is in the image?']
    sentence = said(lambda: desk.discover(upload, 'vlsam_world.py', 'Quick', 'x' * 301, 0.3))
    assert sentence == 'the question has 301 letters; ask in at most 300'
    sentence = said(lambda: desk.discover(upload, 'vlsam_world.py', 'Utmost', '', 0.3))
    assert sentence == "effort 'Utmost' is none of Quick, Standard, Thorough; choose one"


# ------------------------------------------------------------------------------------------------ tab 3

STRIDES = [8, 16, 32, 64, 128]
BOXES = '9 11 40 34 box\n29.5, 24.3, 53.5, 54.3 big disc\n'


def mmdets_positives(boxes: list[list[float]]) -> list[list[int]]:
    """Positives of every box on every level, by mmdet's own ATSS on an image of 64 x 64."""
    generator = AnchorGenerator(STRIDES, ratios=[1.0], octave_base_scale=8, scales_per_octave=1)
    levels = generator.grid_priors([(-(-64 // s), -(-64 // s)) for s in STRIDES], device='cpu')
    sizes = [len(level) for level in levels]
    gts = InstanceData(bboxes=torch.tensor(boxes), labels=torch.zeros(len(boxes), dtype=torch.int64))
    assigned = MMDetATSSAssigner(topk=9).assign(InstanceData(priors=torch.cat(levels)), sizes, gts).gt_inds
    return [[int((level == gt + 1).sum()) for level in assigned.split(sizes)] for gt in range(len(boxes))]


def test_the_table_counts_the_positives_of_mmdets_assigner(desk, shelf):
    shown = desk.assign(shelf.image(), BOXES, None, 'tiny.py', 'iou.py')
    expected = mmdets_positives([[9, 11, 40, 34], [29.5, 24.3, 53.5, 54.3]])
    assert shown.head == ['config', 'object', 'threshold', 'stride 8', '16', '32', '64', '128', 'positives']
    assert [row[:2] for row in shown.rows] == [
        ['tiny', '1 box'],
        ['tiny', '2 big disc'],
        ['iou', '1 box'],
        ['iou', '2 big disc'],
    ]
    assert [row[3:8] for row in shown.rows[:2]] == expected
    assert [row[8] for row in shown.rows[:2]] == [sum(counts) for counts in expected]
    assert all(0 < float(row[2]) < 1 for row in shown.rows[:2])
    # No anchor of 64 pixels or more overlaps a box of 31 x 23 or 24 x 30 by half.
    assert [row[2:] for row in shown.rows[2:]] == [['-', 0, 0, 0, 0, 0, 0]] * 2
    total = sum(map(sum, expected))
    assert shown.sentence == (
        f'tiny (ATSSAssigner): {total} positives for 2 objects, 0 with none. '
        'iou (MaxIoUAssigner): 0 positives for 2 objects, 2 with none.'
    )


def test_every_level_is_a_picture_of_its_own(desk, shelf):
    shown = desk.assign(shelf.image(), BOXES, None, 'tiny.py', 'iou.py')
    expected = np.sum(mmdets_positives([[9, 11, 40, 34], [29.5, 24.3, 53.5, 54.3]]), axis=0)
    (first, levels), (second, none) = shown.pictures
    assert (first, second) == ('tiny (ATSSAssigner)', 'iou (MaxIoUAssigner)')
    assert [caption for _, caption in levels] == [
        'objects',
        *(f'stride {s}: {n} positive{"" if n == 1 else "s"}' for s, n in zip(STRIDES, expected, strict=True)),
    ]
    assert [caption for _, caption in none] == ['objects', *(f'stride {s}: 0 positives' for s in STRIDES)]
    assert {picture.shape for picture, _ in levels + none} == {(360, 360, 3)}
    # A level where something is learned has coloured dots, which are no lines; one without has not.
    for (picture, _), count in zip(levels[1:], expected, strict=True):
        assert (dots(picture) > 0) == (count > 0)
    assert [dots(picture) for picture, _ in none[1:]] == [0] * 5
    image = cv2.resize(cv2.imread(shelf.image()), (360, 360))[..., ::-1]
    assert np.median(np.abs(levels[0][0].astype(int) - image)) < 3
    whole = cv2.imread(shown.file)
    assert Path(shown.file).name == 'val_0.assignment.png'
    assert whole.shape[1] > 6 * 360
    found = cv2.matchTemplate(whole, np.ascontiguousarray(levels[2][0][..., ::-1]), cv2.TM_SQDIFF).min()
    assert found == pytest.approx(0, abs=1)


def dots(picture: np.ndarray) -> int:
    """Pixels of a saturated colour that are three pixels and more from every other."""
    coloured = (picture.max(axis=2).astype(int) - picture.min(axis=2) > 90).astype(np.uint8)
    return int(cv2.erode(coloured, np.ones((4, 4), np.uint8)).sum())


def test_boxes_of_a_coco_json_are_taken_instead(desk, shelf):
    by_json = desk.assign(shelf.image(), 'not looked at', str(shelf.root / 'val.json'), 'tiny.py', None)
    assert [row[1] for row in by_json.rows] == ['1 box']
    assert [row[3:8] for row in by_json.rows] == mmdets_positives([[10, 10, 40, 30]])


LINES = {
    '': 'no boxes are given',
    '1 2 3': "line 1 of the boxes is '1 2 3'; write one box a line",
    '1 1 20 20 cat\nup 1 2 3': "line 2 of the boxes is 'up 1 2 3'",
    '20 1 10 30': "the box of line 1 is '20 1 10 30'; corners must be ordered",
    '1 1 65 20': 'inside of the image, which is 64 x 64 pixels',
    '-1 1 20 20': 'inside of the image',
    'nan 1 20 20': 'corners must be ordered',
    '1 1 1.5 20': 'at least a pixel apart',
    '1 1 20 20\n' * 201: '201 boxes are given; this page takes up to 200',
}


@pytest.mark.parametrize('text', LINES, ids=lambda text: text[:12] or 'nothing')
def test_lines_that_are_no_boxes_are_refused(desk, shelf, text):
    assert LINES[text] in said(lambda: desk.assign(shelf.image(), text, None, 'tiny.py', None))


def coco_of(**changes) -> dict:
    image = {'id': 5, 'file_name': 'val_0.png', 'width': 64, 'height': 64}
    box = {'id': 1, 'image_id': 5, 'category_id': 1, 'bbox': [1, 1, 20, 20], 'area': 400, 'iscrowd': 0}
    content = {'images': [image], 'annotations': [box], 'categories': [{'id': 1, 'name': 'a'}]}
    for key, change in changes.items():
        content[key] = [{**entry, **change} for entry in content[key]]
    return content


TWO = coco_of()
TWO['images'] = [{**TWO['images'][0], 'file_name': f'val_{number}.jpg', 'id': number} for number in (4, 5)]
FILES = {
    'no json': ('{"images": [', 'is no valid JSON'),
    'deep': ('[' * 100_000, 'is no valid JSON'),
    'a list': ('[]', "has no list 'images'"),
    'image': (TWO, 'has no image called val_0.png'),
    'size': (coco_of(images={'width': 65}), 'says that val_0.png is 65 x 64 px, but it is 64 x 64'),
    'no boxes': (coco_of(annotations={'image_id': 6}), 'has 0 boxes for val_0.png'),
    'category': (coco_of(annotations={'category_id': 3}), "category_id is not among 'categories', as at 1"),
    'box': (coco_of(annotations={'bbox': [1, 1, -5, 20]}), 'the box has a negative width or height'),
    'text': (coco_of(annotations={'bbox': 'much'}), 'is not [x, y, width, height], four numbers, as at 1)'),
    'texts': (coco_of(annotations={'bbox': ['1', '1', '9', '9']}), 'four numbers, as at 1); correct it'),
    'huge': (coco_of(annotations={'bbox': [1, 1, 1e999, 9]}), 'is NaN or infinite, as at 1)'),
    'area': (coco_of(annotations={'area': 'x'}), "('area' is missing or no number"),
    'flag': (coco_of(annotations={'iscrowd': 'no'}), '(iscrowd is neither 0 nor 1, as at 1)'),
    'categories null': ({**coco_of(), 'categories': None}, 'is no list, as at categories); correct it'),
    'categories 7': ({**coco_of(), 'categories': 7}, 'is no list, as at categories); correct it'),
    'categories of text': ({**coco_of(), 'categories': ['a']}, "an entry of 'categories' is no object"),
    'annotations': ({**coco_of(), 'annotations': {'a': 1}}, 'is no list, as at annotations)'),
    'category id': (coco_of(categories={'id': {'a': 1}}), "the category's id is neither a number nor a text"),
    'object as id': (coco_of(annotations={'category_id': {'a': 1}}), "is not among 'categories', as at 1"),
    'category name': (coco_of(categories={'name': ['a']}), 'the category has no name'),
    'no id': (coco_of(annotations={'id': None}), "the annotation's id is neither a number nor a text"),
    'crowd': (coco_of(annotations={'iscrowd': 1}), 'assigned: all of them are crowds or to be ignored'),
    'outside': (coco_of(annotations={'bbox': [-50, -50, 20, 20]}), '(first: annotation 1, box [-50, -50,'),
    'large': (' ' * (2**20 + 1), 'this page takes up to 1 MB'),
}


@pytest.mark.parametrize('name', FILES)
def test_a_json_that_does_not_fit_is_refused(desk, shelf, tmp_path, name):
    content, sentence = FILES[name]
    path = tmp_path / 'mine.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    refusal = said(lambda: desk.assign(shelf.image(), '', str(path), 'tiny.py', None))
    assert sentence in refusal
    assert 'mine.json' in refusal  # as its sender calls it
    assert 'boxes.json' not in refusal
    assert tempfile.gettempdir() not in refusal


def test_boxes_that_take_no_part_are_said(desk, shelf, tmp_path):
    content = coco_of()
    box = content['annotations'][0]
    content['annotations'] += [{**box, 'id': 2, 'iscrowd': 1}, {**box, 'id': 3, 'bbox': [70, 70, 9, 9]}]
    del box['iscrowd']  # which nobody needs here
    (tmp_path / 'mine.json').write_text(json.dumps(content))
    shown = desk.assign(shelf.image(), '', str(tmp_path / 'mine.json'), 'tiny.py', None)
    assert [row[1] for row in shown.rows] == ['1 a']
    assert shown.sentence.endswith(
        ' positives for 1 object, 0 with none. 2 of the 3 boxes take no part: a crowd, to be ignored, '
        'thinner than a pixel, or outside of the image.'
    )


def test_a_json_names_no_file_of_the_server(desk, shelf, tmp_path):
    """An entry may be called what it likes: the pixels are those of the image that was sent."""
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps(coco_of(images={'file_name': '/etc/passwd'})))
    image = read_upload(shelf.image(), desk.limits)
    gts = assigning.gts_from_coco(str(path), 'val_0.png', (64, 64))
    ((_, shown),) = assigning.explain_image(image, gts, [('tiny', str(shelf.config))])
    np.testing.assert_array_equal(shown.image, image)
    assert shown.names == ('a',)


def test_examples_bring_boxes_that_can_be_shown(desk):
    upload, boxes = desk.example(3)
    scene = draw_scene(ShapesSpec(), 11, 3)
    image = read_upload(upload, desk.limits)
    np.testing.assert_array_equal(image, scene.image)
    gts = assigning.gts_from_text(boxes, image.shape[:2])
    names = {category['id']: category['name'] for category in gts['categories']}
    assert [names[one['category_id']] for one in gts['annotations']] == list(scene.names)
    corners = [np.add(one['bbox'], [0, 0, *one['bbox'][:2]]) for one in gts['annotations']]
    np.testing.assert_allclose(corners, scene.boxes, atol=1e-3)
    assert desk.example(3 + EXAMPLES)[1] == boxes


def test_of_the_files_handed_out_the_latest_stay(desk):
    places = [desk.outbox.place('same.json') for _ in range(33)]
    assert len(set(places)) == 33
    assert not places[0].parent.exists()
    assert places[1].parent.is_dir()


def test_kinds_of_refusals_are_known_to_the_page():
    assert explain(UserError('a sentence')) == 'a sentence'
    assert explain(DataError('another')) == 'another'
