"""Exports read back by pycocotools, and by a reader of YOLO labels that knows nothing of their writer."""

import contextlib
import io
import json
import tracemalloc

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from pycocotools.coco import COCO

from atss_ext.datasets import ShapesSpec, draw_scene
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.export import to_coco, to_coco_results, to_yolo_boxes, to_yolo_polygons
from atss_ext.vlsam.protocols import VlsamError


def encode(mask):
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))


def detections(masks, names, scores=None):
    """Masks [D,H,W] with tight boxes."""
    boxes = [rle.toBbox(encode(mask)) for mask in masks]
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.1, len(names)) if scores is None else scores
    encoded = [encode(mask) for mask in masks]
    return Detections(masks.shape[1:], boxes, np.array(scores, np.float32), list(names), encoded)


def scene_items(count=4):
    """(file name, detections, masks) of scenes of different sizes; one of them without objects."""
    for number in range(count):
        spec = ShapesSpec(width=160 + 32 * number, height=128, max_size=90)
        scene = draw_scene(spec, 7, number)
        yield f'street/{number}.jpg', detections(scene.masks, scene.names), scene.masks
    yield 'empty.png', Detections((50, 60)), np.zeros((0, 50, 60), bool)


def quietly(call, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        return call(*arguments)


# COCO


def test_pycocotools_reads_the_dataset(tmp_path):
    scenes = list(scene_items())
    path = to_coco(
        ((name, found) for name, found, _ in scenes), tmp_path / 'new' / 'a.json', info={'by': 'me'}
    )
    assert path == tmp_path / 'new' / 'a.json'
    coco = quietly(COCO, str(path))
    assert coco.dataset['info'] == {'by': 'me'}
    assert [coco.imgs[n]['file_name'] for n in range(1, 6)] == [name for name, _, _ in scenes]
    met = list(dict.fromkeys(name for _, found, _ in scenes for name in found.names))
    assert [coco.cats[n]['name'] for n in range(1, len(met) + 1)] == met
    total = 0
    for image_id, (_, found, masks) in enumerate(scenes, start=1):
        assert (coco.imgs[image_id]['height'], coco.imgs[image_id]['width']) == found.size
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        assert len(annotations) == len(found)
        for index, annotation in enumerate(annotations):
            total += 1
            assert annotation['id'] == total
            assert annotation['name'] == coco.cats[annotation['category_id']]['name'] == found.names[index]
            assert annotation['iscrowd'] == 0
            assert annotation['area'] == masks[index].sum()
            assert np.float32(annotation['score']) == found.scores[index]
            x, y, width, height = annotation['bbox']
            assert [x, y, x + width, y + height] == found.boxes[index].tolist()
            np.testing.assert_array_equal(coco.annToMask(annotation), masks[index])
    assert total > 8


def test_pycocotools_reads_the_results_and_finds_them_perfect(tmp_path):
    from pycocotools.cocoeval import COCOeval

    scenes = list(scene_items())
    items = [(name, found) for name, found, _ in scenes]
    truth = quietly(COCO, str(to_coco(items, tmp_path / 'truth.json')))
    image_ids = {image['file_name']: image['id'] for image in truth.dataset['images']}
    category_ids = {category['name']: category['id'] for category in truth.dataset['categories']}
    path = to_coco_results(items, tmp_path / 'results.json', image_ids, category_ids)
    rows = json.loads(path.read_text())
    assert set(rows[0]) == {'image_id', 'category_id', 'bbox', 'score', 'segmentation'}
    results = quietly(truth.loadRes, str(path))
    for annotation in results.dataset['annotations']:
        same = truth.anns[annotation['id']]
        assert annotation['category_id'] == same['category_id']
        np.testing.assert_array_equal(results.annToMask(annotation), truth.annToMask(same))
    for kind in ('bbox', 'segm'):
        evaluation = quietly(COCOeval, truth, results, kind)
        for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
            quietly(step)
        assert evaluation.stats[0] == pytest.approx(1.0)


def test_results_need_an_id_for_every_image_and_name(tmp_path):
    found = detections(np.ones((2, 8, 8), bool), ['cat', 'dog'])
    path = tmp_path / 'a.json'
    with pytest.raises(VlsamError, match=r"the name 'dog' has no id in category_ids; map it, or pass skip"):
        to_coco_results([('a.jpg', found)], path, {'a.jpg': 5}, {'cat': 3})
    with pytest.raises(
        VlsamError, match=r'image b\.jpg has no id in image_ids; add it, or leave the image out'
    ):
        to_coco_results([('b.jpg', found)], path, {'a.jpg': 5}, {'cat': 3})
    assert list(tmp_path.iterdir()) == []
    to_coco_results([('a.jpg', found)], path, {'a.jpg': 5}, {'cat': 3}, skip_unknown=True)
    assert [(row['image_id'], row['category_id']) for row in json.loads(path.read_text())] == [(5, 3)]
    assert json.loads(to_coco_results([], path, {}, {}).read_text()) == []


def test_ids_and_first_categories_may_be_given(tmp_path):
    found = detections(np.ones((2, 8, 8), bool), ['zebra', 'röd  bil 🚗'])
    items = [('a.jpg', found), ('b.jpg', found)]
    path = to_coco(items, tmp_path / 'a.json', image_ids=['x', 7], categories=['dog', 'zebra'])
    content = json.loads(path.read_bytes().decode('ascii'))  # for readers that assume the system's encoding
    assert [image['id'] for image in content['images']] == ['x', 7]
    names = [(category['id'], category['name']) for category in content['categories']]
    assert names == [(1, 'dog'), (2, 'zebra'), (3, 'röd bil 🚗')]
    assert [row['category_id'] for row in content['annotations']] == [2, 3, 2, 3]
    assert content['annotations'][1]['name'] == 'röd  bil 🚗'
    before = path.read_bytes()
    with pytest.raises(ValueError, match='occurs twice'):
        to_coco(items, path, image_ids=[1, 1])
    for ids in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match='zip'):
            to_coco(items, path, image_ids=ids)
    assert path.read_bytes() == before  # a failed export leaves the earlier one
    assert len(list(tmp_path.iterdir())) == 1


def test_frames_of_a_video_keep_their_tracks(tmp_path):
    found = detections(np.ones((2, 8, 8), bool), ['cat', 'cat'])
    path = to_coco(
        [('v/0', found), ('v/5', found)], tmp_path / 'a.json', tracks={'v/0': [1, 2], 'v/5': [2, 3]}
    )
    assert [row['track_id'] for row in json.loads(path.read_text())['annotations']] == [1, 2, 2, 3]


def test_objects_without_masks_are_boxes(tmp_path):
    boxes = np.array([[1, 2, 5, 8]], np.float32)
    found = Detections((10, 20), boxes, np.array([0.5], np.float32), ['cat'])
    (row,) = json.loads(to_coco([('a.jpg', found)], tmp_path / 'a.json').read_text())['annotations']
    assert row['bbox'] == [1, 2, 4, 6]
    assert row['area'] == 24
    assert 'segmentation' not in row
    folder = to_yolo_polygons([('a.jpg', found)], tmp_path / 'yolo')
    assert (folder / 'labels/a.txt').read_text() == (
        '0 0.050000 0.200000 0.250000 0.200000 0.250000 0.800000 0.050000 0.800000\n'
    )


def test_memory_does_not_grow_with_the_objects(tmp_path):
    mask = np.random.default_rng(0).random((1, 64, 64)) < 0.5
    found = detections(mask, ['thing'])

    def peak(count):
        many = found.select([0] * 50)
        tracemalloc.start()
        to_coco(((str(n), many) for n in range(count)), tmp_path / 'a.json')
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest, (tmp_path / 'a.json').stat().st_size

    peak(2)
    (few, _), (more, size) = peak(4), peak(40)
    assert size > 3e6
    assert more < few + 50_000


# YOLO


class YoloLabels:
    """Reads a folder of labels as trainers do."""

    def __init__(self, folder):
        self.folder = folder
        self.names = (folder / 'classes.txt').read_text(encoding='utf-8').splitlines()
        content = yaml.safe_load((folder / 'data.yaml').read_text(encoding='utf-8'))
        assert content['names'] == dict(enumerate(self.names))
        assert content['train'] == content['val'] == 'images'

    def rows(self, image):
        """(name, numbers) of each line of an image's label."""
        text = (self.folder / 'labels' / image).with_suffix('.txt').read_text()
        assert text == '' or text.endswith('\n')
        for line in text.splitlines():
            first, *rest = line.split(' ')
            assert all(len(word.split('.')[1]) == 6 for word in rest)
            values = [float(word) for word in rest]
            assert all(0 <= value <= 1 for value in values)
            yield self.names[int(first)], values

    def boxes(self, image, size):
        height, width = size
        for name, (cx, cy, w, h) in self.rows(image):
            yield (
                name,
                [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height],
            )

    def masks(self, image, size):
        height, width = size
        for name, values in self.rows(image):
            assert len(values) >= 6
            assert len(values) % 2 == 0
            points = [(x * width, y * height) for x, y in zip(values[::2], values[1::2], strict=True)]
            canvas = Image.new('1', (width, height))
            ImageDraw.Draw(canvas).polygon(points, fill=1)
            yield name, np.array(canvas)


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_yolo_boxes_are_read_back(tmp_path):
    scenes = list(scene_items())
    labels = YoloLabels(to_yolo_boxes(((name, found) for name, found, _ in scenes), tmp_path / 'out'))
    for image, found, _ in scenes:
        rows = list(labels.boxes(image, found.size))
        assert [name for name, _ in rows] == found.names
        for (_, box), expected in zip(rows, found.boxes, strict=True):
            np.testing.assert_allclose(box, expected, atol=3e-4)
    assert sum(len(found) for _, found, _ in scenes) > 8


def test_yolo_boxes_literally(tmp_path):
    boxes = np.array([[10, 20, 30, 60], [-5, 0, 200, 100], [7, 7, 7, 9]], np.float32)
    found = Detections((100, 200), boxes, np.array([0.75, 0.5, 0.25], np.float32), ['b', 'a', 'a'])
    to_yolo_boxes([('a.jpg', found)], tmp_path, categories=['a'])
    lines = [
        '1 0.100000 0.400000 0.100000 0.400000',
        '0 0.500000 0.500000 1.000000 1.000000',
    ]  # none of no area
    assert (tmp_path / 'labels/a.txt').read_text().splitlines() == lines
    assert (tmp_path / 'classes.txt').read_text() == 'a\nb\n'
    to_yolo_boxes([('a.jpg', found)], tmp_path, scores=True)
    lines = [
        '0 0.100000 0.400000 0.100000 0.400000 0.750000',
        '1 0.500000 0.500000 1.000000 1.000000 0.500000',
    ]
    assert (tmp_path / 'labels/a.txt').read_text().splitlines() == lines


def test_yolo_polygons_are_read_back(tmp_path):
    scenes = list(scene_items())
    items = [(name, found) for name, found, _ in scenes]
    sizes = {}
    for least in (0.98, 1.0):
        labels = YoloLabels(to_yolo_polygons(items, tmp_path / 'out', min_iou=least))
        sizes[least] = sum(path.stat().st_size for path in (tmp_path / 'out/labels').rglob('*.txt'))
        for image, found, masks in scenes:
            rows = list(labels.masks(image, found.size))
            assert [name for name, _ in rows] == found.names
            for (_, drawn), mask in zip(rows, masks, strict=True):
                assert iou(drawn, mask) >= least - 0.01 * (least < 1)
    assert sizes[0.98] < sizes[1.0] / 3


def test_an_image_without_objects_has_an_empty_label(tmp_path):
    for export in (to_yolo_boxes, to_yolo_polygons):
        folder = export([('a/b.jpg', Detections((8, 8)))], tmp_path / export.__name__)
        assert (folder / 'labels/a/b.txt').read_bytes() == b''
        assert (folder / 'classes.txt').read_bytes() == b''
        assert yaml.safe_load((folder / 'data.yaml').read_text())['names'] == {}


def test_names_survive_in_every_file(tmp_path):
    names = [
        'red: circle',
        'it\'s "quoted"',
        '# hash',
        '红色的圆',
        'crème 🍦',
        'yes',
        '1.5',
        '{a}',
        'tab\tand\nline',
        'x\x7f',
    ]
    found = detections(np.ones((len(names), 8, 8), bool), names)
    labels = YoloLabels(to_yolo_boxes([('a.jpg', found)], tmp_path))
    assert labels.names == [*names[:-2], 'tab and line', 'x\x7f']


def test_files_of_one_name_in_different_folders_do_not_collide(tmp_path):
    images = ['a/1.jpg', 'b/1.jpg', '1.jpg', '/data/1.jpg', 'film.mp4/0.5', 'film.mp4/0.6']
    for number, export in enumerate((to_yolo_boxes, to_yolo_polygons)):
        folder = export(
            [(name, detections(np.ones((1, 8, 8), bool), [name])) for name in images], tmp_path / str(number)
        )
        files = sorted(
            path.relative_to(folder / 'labels').as_posix() for path in folder.rglob('labels/**/*.txt')
        )
        assert files == ['1.txt', 'a/1.txt', 'b/1.txt', 'data/1.txt', 'film.mp4/0.5.txt', 'film.mp4/0.6.txt']
        assert (folder / 'labels/b/1.txt').read_text().split()[0] == '1'
    found = Detections((8, 8))
    with pytest.raises(
        VlsamError, match=r'a/b\.png and a/b\.jpg would share the label file a/b\.txt; rename one'
    ):
        to_yolo_boxes([('a/b.jpg', found), ('a/b.png', found)], tmp_path / 'out')
    with pytest.raises(
        VlsamError, match=r'image \.\./b\.jpg lies outside of the labels; pass its path below'
    ):
        to_yolo_boxes([('../b.jpg', found)], tmp_path / 'out')
    assert list((tmp_path / 'out').iterdir()) == []


def test_labels_are_replaced_as_a_whole_and_those_of_others_never(tmp_path):
    found = detections(np.ones((1, 8, 8), bool), ['cat'])
    to_yolo_boxes([('a.jpg', found), ('b.jpg', found)], tmp_path)
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/a.jpg').write_bytes(b'mine')
    to_yolo_polygons([('a.jpg', found)], tmp_path)
    assert [path.name for path in (tmp_path / 'labels').iterdir()] == ['a.txt']
    assert (tmp_path / 'images/a.jpg').read_bytes() == b'mine'

    def broken():
        yield 'c.jpg', found
        raise RuntimeError('no more')

    with pytest.raises(RuntimeError, match='no more'):
        to_yolo_boxes(broken(), tmp_path)
    assert [path.name for path in (tmp_path / 'labels').iterdir()] == ['a.txt']
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'classes.txt',
        'data.yaml',
        'images',
        'labels',
    ]
    (tmp_path / 'own/labels').mkdir(parents=True)
    (tmp_path / 'own/data.yaml').write_text('names: [cat]')
    with pytest.raises(VlsamError, match='labels exists and is no export of ours; choose another folder'):
        to_yolo_boxes([('a.jpg', found)], tmp_path / 'own')


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(VlsamError, match=r'file/a\.json cannot be written \(.+\); choose another folder'):
        to_coco([], tmp_path / 'file/a.json')
    with pytest.raises(VlsamError, match=r'file/out cannot be written \(.+\); choose another folder'):
        to_yolo_boxes([], tmp_path / 'file/out')
    with pytest.raises(ValueError, match='min_iou must be from 0 to 1, but is 2'):
        to_yolo_polygons([], tmp_path / 'out', min_iou=2)
