import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from pycocotools.coco import COCO

from atss_ext.datasets import ShapesDataset, ShapesSpec, draw_scene, shapes_metainfo, split_seed, write_coco
from atss_ext.datasets.checks import DataError

COLOURS, SHAPES = ('red', 'green', 'blue', 'yellow'), ('circle', 'square', 'triangle', 'star')
SMALL = ShapesSpec(
    width=96, height=80, colours=COLOURS, shapes=SHAPES, max_size=60, min_objects=1, max_objects=4
)
REPO = Path(__file__).resolve().parents[2]

WRITE = """
import sys
import cv2
import numpy as np
from atss_ext.datasets import ShapesSpec, write_coco
cv2.setNumThreads(4)
cv2.resize(np.zeros((2000, 2000, 3), np.float32), (1000, 1000))  # OpenCV's threads are running now
colours, shapes = ('red', 'green', 'blue', 'yellow'), ('circle', 'square', 'triangle', 'star')
spec = ShapesSpec(
    width=96, height=80, colours=colours, shapes=shapes, max_size=60, min_objects=1, max_objects=4
)
write_coco(sys.argv[1], 'train', int(sys.argv[2]), spec, seed=int(sys.argv[3]), workers=int(sys.argv[4]))
"""


def start(root, count, seed, workers, hash_seed='0'):
    environment = {**os.environ, 'PYTHONPATH': str(REPO), 'PYTHONHASHSEED': hash_seed}
    command = [sys.executable, '-c', WRITE, str(root), str(count), str(seed), str(workers)]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def digest(folder):
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp('shapes'), 'train', 40, SMALL, seed=3)


def test_files_are_identical_in_other_processes_and_with_workers(written, tmp_path):
    runs = [start(tmp_path / name, 40, 3, workers, name) for name, workers in (('1', 0), ('2', 3))]
    # A worker that touches OpenCV's threads after the fork would wait for ever.
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    expected = digest(written)
    assert len(expected) == 42
    assert digest(tmp_path / '1' / 'train') == expected
    assert digest(tmp_path / '2' / 'train') == expected


def test_an_image_does_not_depend_on_how_many_there_are(written, tmp_path):
    fewer = write_coco(tmp_path, 'train', 11, SMALL, seed=3)
    for index in range(11):
        name = f'images/{index:06d}.jpg'
        assert (fewer / name).read_bytes() == (written / name).read_bytes()
    both = [
        json.loads((folder / 'annotations.json').read_text())['annotations'] for folder in (fewer, written)
    ]
    assert both[0] == both[1][: len(both[0])]


def test_another_seed_and_another_split_draw_other_images(written, tmp_path):
    others = [write_coco(tmp_path, 'train', 5, SMALL, seed=4), write_coco(tmp_path, 'val', 5, SMALL, seed=3)]
    known = set(digest(written / 'images').values())
    for other in others:
        assert not known & set(digest(other / 'images').values())


def test_pycocotools_reads_what_the_scene_holds(written):
    coco = COCO(str(written / 'annotations.json'))
    assert [entry['id'] for entry in coco.loadImgs(coco.getImgIds())] == list(range(1, 41))
    assert [coco.cats[number]['name'] for number in range(1, 17)] == list(SMALL.category_names)
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    for index in range(40):
        scene = draw_scene(SMALL, split_seed(3, 'train'), index)
        annotations = coco.imgToAnns[index + 1]
        assert [a['category_id'] for a in annotations] == scene.category_ids.tolist()
        for annotation, mask in zip(annotations, scene.masks, strict=True):
            decoded = coco.annToMask(annotation).astype(bool)
            assert np.array_equal(decoded, mask)
            assert annotation['area'] == decoded.sum()
            rows, columns = np.nonzero(decoded)
            x, y, width, height = annotation['bbox']
            assert [x, y] == [columns.min(), rows.min()]
            assert [x + width, y + height] == [columns.max() + 1, rows.max() + 1]
            assert annotation['iscrowd'] == 0
        stored = cv2.imread(str(written / 'images' / coco.imgs[index + 1]['file_name']))[..., ::-1]
        assert stored.shape == (80, 96, 3)
        # JPEG halves the resolution of colour, and the noise is coloured.
        difference = stored.astype(np.float32) - scene.image
        assert np.abs(cv2.resize(difference, (24, 20), interpolation=cv2.INTER_AREA)).mean() < 2


def test_a_complete_split_is_found_again_untouched(tmp_path):
    folder = write_coco(tmp_path, 'val', 6, SMALL, seed=0)
    before = (folder.stat().st_ino, (folder / 'annotations.json').stat().st_mtime_ns)
    calls = []
    write_coco(tmp_path, 'val', 6, SMALL, seed=0, progress=lambda *numbers: calls.append(numbers))
    assert (folder.stat().st_ino, (folder / 'annotations.json').stat().st_mtime_ns) == before
    assert calls == []


@pytest.mark.parametrize('change', ['seed', 'spec', 'count', 'lost image', 'lost annotations'])
def test_a_split_that_is_not_the_one_asked_for_is_made_anew(tmp_path, change):
    folder = write_coco(tmp_path / 'a', 'val', 6, SMALL, seed=0)
    spec = dataclasses.replace(SMALL, clutter=0) if change == 'spec' else SMALL
    count, seed = 7 if change == 'count' else 6, 1 if change == 'seed' else 0
    if change.startswith('lost'):
        (folder / ('images/000003.jpg' if change == 'lost image' else 'annotations.json')).unlink()
    write_coco(tmp_path / 'a', 'val', count, spec, seed=seed)
    assert digest(folder) == digest(write_coco(tmp_path / 'b', 'val', count, spec, seed=seed))


def test_a_killed_generation_leaves_no_dataset_and_the_next_run_recovers(tmp_path):
    write_coco(tmp_path / 'clean', 'train', 60, SMALL, seed=2)
    run = start(tmp_path / 'killed', 100000, 2, 2)
    images = tmp_path / 'killed' / '.train.building' / 'images'
    deadline = time.monotonic() + 90
    while len(list(images.glob('*.jpg'))) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (tmp_path / 'killed' / 'train').exists()
    again = write_coco(tmp_path / 'killed', 'train', 60, SMALL, seed=2)
    assert digest(again) == digest(tmp_path / 'clean' / 'train')
    assert [path.name for path in (tmp_path / 'killed').iterdir() if path.is_dir()] == ['train']


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'thesis.tex').write_text('years of work')
    with pytest.raises(
        FileExistsError, match=r'train exists and is no shapes dataset: choose another folder'
    ):
        write_coco(tmp_path, 'train', 2, SMALL, seed=0)
    assert (tmp_path / 'train' / 'thesis.tex').read_text() == 'years of work'


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'count': 0}, 'count must be an integer of at least 1, but is 0.'),
        ({'workers': -1}, 'workers must be an integer of at least 0, but is -1.'),
        ({'split': '../train'}, 'split must be a plain folder name such as "train", but is \'../train\'.'),
        ({'seed': -5}, 'seed must be an integer from 0 to 9223372036854775807, but is -5.'),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, sentence):
    with pytest.raises(ValueError) as refusal:
        write_coco(tmp_path / 'new', **{'split': 'train', 'count': 2, 'spec': SMALL, 'seed': 0, **arguments})
    assert str(refusal.value) == sentence
    assert not (tmp_path / 'new').exists()


def dataset(folder, **arguments):
    with DefaultScope.overwrite_default_scope('mmdet'):  # whatever an earlier test left behind
        return ShapesDataset(
            ann_file=str(folder / 'annotations.json'),
            data_prefix={'img': str(folder / 'images')},
            test_mode=True,
            metainfo=arguments.pop('metainfo', shapes_metainfo(SMALL)),
            pipeline=[
                {'type': 'LoadImageFromFile'},
                {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
                {'type': 'PackDetInputs'},
            ],
            **arguments,
        )


def test_mmdet_loads_boxes_labels_and_masks(written):
    data = dataset(written)
    assert len(data) == 40
    for index in range(40):
        gts = data[index]['data_samples'].gt_instances
        scene = draw_scene(SMALL, split_seed(3, 'train'), index)
        assert np.array_equal(gts.bboxes.tensor.numpy(), scene.boxes)
        assert [data.metainfo['classes'][label] for label in gts.labels] == list(scene.names)
        assert np.array_equal(gts.masks.masks.astype(bool), scene.masks)


def test_a_dataset_of_other_classes_is_refused(written, tmp_path):
    other = ShapesSpec(width=96, height=80, max_size=60, colours=('lime', 'red'), shapes=('ring', 'circle'))
    folder = write_coco(tmp_path, 'train', 4, other, seed=0)
    with pytest.raises(DataError, match="has no category 'red square': pass metainfo=shapes_metainfo"):
        dataset(folder)
    assert len(dataset(folder, metainfo=shapes_metainfo(other))) == 4
    swapped = shapes_metainfo(dataclasses.replace(other, colours=('red', 'lime')))
    with pytest.raises(DataError, match='has its categories in another order'):
        dataset(folder, metainfo=swapped)


def test_the_annotation_file_is_parsed_once(written, monkeypatch):
    parsed = []
    load = json.load

    def spy(stream, **rest):
        parsed.append(stream.name)
        return load(stream, **rest)

    monkeypatch.setattr(json, 'load', spy)
    dataset(written)
    assert parsed == [str(written / 'annotations.json')]
