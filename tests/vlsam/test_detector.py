"""VL-SAM as an mmdet model: tools/test.py over a data set, several processes, failures, resumption."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rule_models  # noqa: F401 - registers the stand-ins
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.registry import init_default_scope
from ports import free_port
from pycocotools import mask as rle
from pycocotools.coco import COCO
from rule_segmenter import RuleSegmenter
from rule_vlm import RuleVLM, draw
from torch import nn
from warm import run_warm

from atss_ext.cli.results import DumpDetections
from atss_ext.registry import MODELS
from atss_ext.vlsam import VlsamError
from atss_ext.vlsam.detector import to_instances

ROOT = Path(__file__).resolve().parents[2]
SIZE = (96, 128)
SCENES = {
    'a.png': {
        'red square': [(8, 8, 40, 40)],
        'green square': [(80, 40, 112, 72)],
        'blue square': [(50, 4, 66, 20)],
    },
    'b.png': {'green square': [(60, 30, 100, 80)], 'blue square': [(4, 60, 28, 84)]},
    'c.png': {'red square': [(20, 20, 60, 60)], 'blue square': [(90, 60, 122, 92)]},
    'd.png': {},
    'e.png': {'red square': [(64, 8, 120, 60)], 'green square': [(8, 40, 40, 72)]},
}
CONFIG = """
_base_ = ['atss_ext::_base_/vlsam_runtime.py', 'atss_ext::_base_/datasets/open_ended_images.py']
custom_imports = dict(imports=['rule_models'], allow_failed_imports=False)
model = dict(
    type='atss_ext.VLSAM',
    vlm=dict(type='atss_ext.RuleVLM'),
    segmenter=dict(type='atss_ext.RuleSegmenter'),
    corners=False,
    questions='single')
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='{root}'))
test_evaluator = dict(outfile='{root}/../found.json')
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five images and a config."""
    images = tmp_path / 'images'
    images.mkdir()
    for name, scene in SCENES.items():
        cv2.imwrite(str(images / name), np.ascontiguousarray(draw(SIZE, scene)[..., ::-1]))
    (tmp_path / 'rule.py').write_text(CONFIG.format(root=images.as_posix()))
    return tmp_path


def command(folder: Path, *args: str, processes: int = 0) -> tuple[list[str], dict]:
    python_path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    words = [sys.executable, str(ROOT / 'tools/test.py'), 'rule.py', *args]
    if processes:
        words = [str(ROOT / 'tools/dist_test.sh'), 'rule.py', 'none', str(processes), *args]
    environment = {**os.environ, 'PYTHONPATH': python_path, 'PATH': path, 'OMP_NUM_THREADS': '1'}
    return words, {'cwd': folder, 'env': environment | {'CUDA_VISIBLE_DEVICES': '', 'PORT': free_port()}}


def run(folder: Path, *args: str, processes: int = 0) -> str:
    words, options = command(folder, *args, processes=processes)
    if processes:
        done = subprocess.run(words, capture_output=True, text=True, timeout=280, check=False, **options)
    else:
        done = run_warm(words[1:], folder, options['env'])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def found(path: Path) -> dict[str, set[tuple]]:
    """File name -> (name, box) of its objects, as pycocotools reads them; masks fill their boxes."""
    coco = COCO(str(path))
    objects = {}
    for image in coco.loadImgs(coco.getImgIds()):
        rows = coco.loadAnns(coco.getAnnIds(imgIds=image['id']))
        for row in rows:
            x, y, w, h = map(int, row['bbox'])
            assert coco.annToMask(row)[y : y + h, x : x + w].all()
            assert row['area'] == w * h
        objects[Path(image['file_name']).name] = {
            (coco.cats[row['category_id']]['name'], *map(int, row['bbox'])) for row in rows
        }
    return objects


def truth() -> dict[str, set[tuple]]:
    return {
        file: {(name, x1, y1, x2 - x1, y2 - y1) for name, boxes in scene.items() for x1, y1, x2, y2 in boxes}
        for file, scene in SCENES.items()
    }


def build(**settings):
    init_default_scope('mmdet')
    config = {
        'type': 'atss_ext.VLSAM',
        'vlm': {'type': 'atss_ext.RuleVLM'},
        'segmenter': {'type': 'atss_ext.RuleSegmenter'},
        'corners': False,
        'questions': 'single',
    }
    return MODELS.build({**config, **settings})


def batch(*names: str) -> dict:
    images = [torch.from_numpy(draw(SIZE, SCENES[name])[..., ::-1].copy()).permute(2, 0, 1) for name in names]
    samples = [
        DetDataSample(metainfo={'img_id': name, 'img_path': name, 'ori_shape': SIZE, 'img_shape': SIZE})
        for name in names
    ]
    return {'inputs': images, 'data_samples': samples}


def instances(sample) -> set[tuple]:
    rows = sample.pred_instances
    return {(name, *map(int, box)) for name, box in zip(rows.names, rows.bboxes.tolist(), strict=True)}


def test_a_batch_gives_what_its_images_give_alone():
    model = build()
    names = list(SCENES)
    together = model.test_step(batch(*names))
    for name, sample in zip(names, together, strict=True):
        (alone,) = model.test_step(batch(name))
        assert instances(alone) == instances(sample)
        assert torch.equal(alone.pred_instances.scores, sample.pred_instances.scores)
        expected = {(kind, *box) for kind, boxes in SCENES[name].items() for box in boxes}
        assert instances(sample) == expected
        assert sample.pred_instances.labels.tolist() == [0] * len(expected)


def test_a_failing_image_is_said_and_the_others_are_kept(tmp_path):
    model = build(vlm={'type': 'atss_ext.FussyVLM'}, store=str(tmp_path / 'store'))
    samples = model.test_step(batch('a.png', 'c.png', 'e.png', 'b.png'))
    assert [len(sample.pred_instances.names) for sample in samples] == [3, 0, 0, 2]
    assert samples[1].vlsam_error == 'there is no green in this image'
    assert samples[2].vlsam_error == 'ZeroDivisionError: no blue'
    assert set(model.store.failures()) == {'c.png', 'e.png'}
    assert model.store.keys() == ['a.png', 'b.png']


def test_kept_results_are_not_computed_again(tmp_path):
    first = build(store=str(tmp_path / 'store'))
    before = first.test_step(batch('a.png', 'b.png'))
    second = build(store=str(tmp_path / 'store'))
    after = second.test_step(batch('a.png', 'b.png', 'c.png'))
    assert second.pipeline.segmenter.embedded == 1  # c.png alone
    for one, other in zip(before, after[:2], strict=True):
        assert one.pred_instances.names == other.pred_instances.names
        assert torch.equal(one.pred_instances.scores, other.pred_instances.scores)
        assert one.pred_instances.masks == other.pred_instances.masks
    with pytest.raises(VlsamError, match='results of other settings'):
        build(store=str(tmp_path / 'store'), rows='last')


def test_masks_are_run_lengths_and_leave_for_metrics():
    (sample,) = build().test_step(batch('b.png'))
    rows = sample.to_dict()['pred_instances']
    decoded = [rle.decode(mask) for mask in rows['masks']]
    assert [int(mask.sum()) for mask in decoded] == [
        int((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in rows['bboxes'].tolist()
    ]


def test_images_that_were_normalised_are_refused_in_a_sentence():
    model = build()
    data = batch('a.png')
    data['inputs'] = [image.float() for image in data['inputs']]
    with pytest.raises(VlsamError, match='remove normalisation'):
        model.test_step(data)


def test_what_mmdet_expects_of_a_trained_model_is_refused():
    model = build()
    with pytest.raises(VlsamError, match='not trained'):
        model(**batch('a.png'), mode='loss')
    assert not list(model.parameters())
    with pytest.raises(ValueError, match='init_cfg'):
        build(init_cfg={'type': 'Pretrained', 'checkpoint': 'x.pth'})
    with pytest.raises(ValueError, match="no setting 'theshold'"):
        build(theshold=1)


@MODELS.register_module(force=True)
class MovedVLM(RuleVLM):
    """Notes where it is moved."""

    def __init__(self, device='auto', load_options=None):
        super().__init__()
        self.moves = []

    def to(self, device):
        self.moves.append(device)


@MODELS.register_module(force=True)
class MovedSegmenter(RuleSegmenter):
    """Likewise."""

    def __init__(self, device='auto'):
        super().__init__()
        self.moves = []

    def to(self, device):
        self.moves.append(device)


def test_moving_the_model_moves_both_parts():
    model = build(vlm={'type': 'atss_ext.MovedVLM'}, segmenter=MovedSegmenter())
    moves = [model.pipeline.vlm.moves, model.pipeline.segmenter.moves]
    model.to('meta')
    assert moves == [[torch.device('meta')]] * 2
    nn.ModuleDict({'wrapped': model}).cpu()
    model.to('cpu')
    model.to_empty(device='cpu')
    assert moves == [[torch.device('meta'), *[torch.device('cpu')] * 3]] * 2


def test_casting_the_model_moves_nothing():
    model = build(vlm={'type': 'atss_ext.MovedVLM'})
    for cast in (model.half, model.float, model.double, model.bfloat16, model.share_memory):
        cast()
    model.to(torch.float16)
    assert model.pipeline.vlm.moves == []
    model.to('cpu', torch.float16)
    assert model.pipeline.vlm.moves == [torch.device('cpu')]


@pytest.mark.parametrize('own', [{'device': 'cuda:1'}, {'load_options': {'device_map': 'auto'}}])
def test_a_part_that_names_its_device_stays_there(own):
    segmenter = {'type': 'atss_ext.MovedSegmenter', 'device': 'auto'}
    model = build(vlm={'type': 'atss_ext.MovedVLM', **own}, segmenter=segmenter)
    model.to('meta')
    assert model.pipeline.vlm.moves == []
    assert model.pipeline.segmenter.moves == [torch.device('meta')]


def test_the_test_tool_runs_over_a_folder_and_says_what_it_found(folder):
    output = run(folder, '--out', 'results.json', '--show-dir', 'pictures')
    assert found(folder / 'found.json') == truth()
    assert 'open_ended/images: 5' in output
    assert 'open_ended/objects: 9' in output
    rows = json.loads((folder / 'results.json').read_text())
    assert len(rows) == 9
    assert {row['name'] for row in rows} == {'red square', 'green square', 'blue square'}
    assert len(list(folder.glob('work_dirs/rule/*/pictures/*.png'))) == 5


def test_the_test_tool_writes_what_mmdets_own_tools_read(folder):
    run(folder, '--out', 'results.pkl')
    with open(folder / 'results.pkl', 'rb') as file:
        results = pickle.load(file)  # noqa: S301 - written just now
    boxes = {}
    for sample in results:
        rows = sample['pred_instances']
        assert rows['labels'].tolist() == [0] * len(rows['names'])
        boxes[Path(sample['img_path']).name] = set()
        for name, box, mask in zip(rows['names'], rows['bboxes'].tolist(), rows['masks'], strict=True):
            x1, y1, x2, y2 = map(int, box)
            expected = np.zeros(SIZE, np.uint8)
            expected[y1:y2, x1:x2] = 1
            # What mmdet makes of the same mask.
            assert [mask] == encode_mask_results(expected[None])
            boxes[Path(sample['img_path']).name].add((name, x1, y1, x2 - x1, y2 - y1))
    assert boxes == truth()


def test_run_lengths_of_text_become_mmdets_and_masks_of_pixels_still_do():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 2:5] = True
    encoded = encode_mask_results(masks.numpy())
    text = [{**mask, 'counts': mask['counts'].decode()} for mask in encoded]
    metric = DumpDetections('x.pkl')
    for given in (masks, encoded, text):
        sample = {'img_id': 7, 'pred_instances': {'masks': given, 'names': ['a', 'b']}, 'gt_instances': {}}
        metric.process({}, [sample, {'img_id': 8}])
        assert sample['pred_instances']['masks'] is given or given is masks
    expected = {'img_id': 7, 'pred_instances': {'masks': encoded, 'names': ['a', 'b']}}
    assert metric.results == [expected, {'img_id': 8}] * 3


def test_test_time_augmentation_is_refused_in_a_sentence(folder):
    text = (folder / 'rule.py').read_text().replace('atss_ext.RuleVLM', 'atss_ext.NoSuchVLM')
    (folder / 'rule.py').write_text(text)
    words, options = command(folder, '--tta')
    done = run_warm(words[1:], folder, options['env'])
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        'error: --tta: atss_ext.VLSAM takes images as they are and merges views of its own (corners=True); '
        'leave --tta away'
    )


def test_two_processes_with_uneven_shares_give_what_one_gives(folder):
    run(folder)
    one = json.loads((folder / 'found.json').read_text())
    (folder / 'found.json').unlink()
    run(folder, processes=2)
    two = json.loads((folder / 'found.json').read_text())
    assert two == one
    assert found(folder / 'found.json') == truth()


def test_a_damaged_image_does_not_end_the_run(folder):
    (folder / 'images/b.png').write_bytes(b'no image')
    output = run(folder)
    assert 'open_ended/failed: 1' in output
    assert 'b.png' in output
    assert {name: rows for name, rows in found(folder / 'found.json').items() if rows} == {
        name: rows for name, rows in truth().items() if rows and name != 'b.png'
    }


def test_a_killed_run_goes_on_where_it_was(folder):
    """SIGKILL while an image is looked at; the next run looks only at what is left."""
    text = (folder / 'rule.py').read_text().replace('atss_ext.RuleVLM', 'atss_ext.SlowVLM')
    (folder / 'rule.py').write_text(
        text.replace("questions='single'", f"questions='single', store='{folder}/kept'")
    )
    words, options = command(folder)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        deadline = time.monotonic() + 200
        while len(list((folder / 'kept').glob('??/*.json'))) < 2 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    kept = len(list((folder / 'kept').glob('??/*.json')))
    assert 2 <= kept < 5
    (folder / 'asked.txt').unlink()
    run(folder)
    assert found(folder / 'found.json') == truth()
    assert len((folder / 'asked.txt').read_text().splitlines()) == 5 - kept


def test_a_trained_model_still_needs_its_checkpoint(tmp_path):
    words = [sys.executable, str(ROOT / 'tools/test.py'), 'mmdet::atss/atss_r50_fpn_1x_coco.py']
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        'error: ATSS needs a checkpoint; name it behind the config: tools/test.py CONFIG CHECKPOINT'
    )


def test_instances_of_no_detection_are_empty():
    (sample,) = build().test_step(batch('d.png'))
    assert sample.pred_instances.bboxes.shape == (0, 4)
    assert to_instances(build().pipeline.detect(draw(SIZE, {}))).masks == []
