"""tools/evaluate.py of a run's results gives the run's own figures: CODA, LVIS, and free names."""

import json
import subprocess
import sys

import cv2
import pytest
import torch
from ports import free_port
from rule_vlm import draw
from tiny_coco import REPO, environment

CLASSIC = """
test_evaluator = [
    dict(type='atss_ext.CodaMetric', ann_file=data_root + 'val.json'),
    dict(type='atss_ext.CodaMetric', ann_file=data_root + 'corner_case.json', prefix='base'),
    dict(type='atss_ext.LvisMetric', ann_file=data_root + 'val.json', protocol=['standard', 'fixed'])]
"""
# What scores the two runs: options of tools/evaluate.py, and the prefix of the metric.
OFFLINE = [
    ('val.json', ('--kind', 'coda', '--backend', 'reference'), 'coda'),
    ('corner_case.json', ('--kind', 'coda'), 'base'),
    ('val.json', ('--kind', 'lvis', '--fixed'), 'lvis'),
]
# Neither nought nor one: otherwise equal figures say little.
TELLING = (
    'coda/bbox_AP_common',
    'coda/bbox_AR_agnostic_corner',
    'base/bbox_CORNER_mAR',
    'base/bbox_COMMON_mAR',
    'base/bbox_NOVEL_AR10',
    'lvis/bbox_AP',
    'lvis/bbox_fixed_AP',
)

OPEN_ENDED = """
_base_ = ['atss_ext::_base_/vlsam_runtime.py', 'atss_ext::_base_/datasets/open_ended_images.py']
custom_imports = dict(imports=['rule_models'], allow_failed_imports=False)
model = dict(
    type='atss_ext.VLSAM', vlm=dict(type='atss_ext.RuleVLM'), segmenter=dict(type='atss_ext.RuleSegmenter'),
    corners=False, questions='single')
ann = '{root}/val.json'
test_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='{root}/', ann_file='val.json'))
kinds = dict(
    coda=dict(type='atss_ext.CodaMetric'),
    coco=dict(type='atss_ext.CocoMetric'),
    lvis=dict(type='atss_ext.LvisMetric', protocol=['standard', 'fixed']))
test_evaluator = [
    dict(type='atss_ext.NamedMetric', prefix='names_' + name,
         metric=dict(ann_file=ann, metric=['bbox', 'segm'], **kind))
    for name, kind in kinds.items()]
"""
SIZE = (96, 128)
SCENES = {
    1: {'red square': [(8, 8, 40, 40)], 'green square': [(80, 40, 112, 72)]},
    2: {'blue square': [(4, 60, 28, 84)], 'green square': [(60, 30, 100, 80)]},
    3: {'red square': [(20, 20, 60, 60)]},
}
# image, category, xywh: the red car of image 1 in part, its dog, a dog that nothing finds, the car whole.
OBJECTS = [
    (1, 30, [8, 8, 32, 24]),
    (1, 10, [80, 40, 32, 32]),
    (2, 10, [2, 2, 20, 20]),
    (3, 30, [20, 20, 40, 40]),
]


def figures_of_run(work_dir):
    """The figures of a run of tools/test.py, from its log; without the times."""
    (log,) = work_dir.glob('*/*.json')
    return {
        name: value for name, value in json.loads(log.read_text().splitlines()[-1]).items() if '/' in name
    }


def check_offline(in_process, tmp_path, results, ann, options, wanted, prefix):
    out = tmp_path / f'{prefix}.json'
    code, said = in_process('evaluate.py', results, '--ann', ann, '--json', out, *options)
    assert code == 0, said
    offline = {f'{prefix}/{name}': value for name, value in json.loads(out.read_text()).items()}
    assert offline == {name: value for name, value in wanted.items() if name.startswith(f'{prefix}/')}


def run_test(in_process, *args):
    code, said = in_process('test.py', *args)
    assert code == 0, said


def make_data(tiny, found=()):
    """Three images; the objects are half of the detections, moved by some pixels.

    An object is of its detection's class, but for each fourth one. Both classes were looked for in the first
    image only; in the second one not all dogs are marked.
    """
    images = [
        {'id': n, 'file_name': name, 'width': 64, 'height': 64, 'neg_category_ids': [1, 2] if n == 1 else [],
         'not_exhaustive_category_ids': [2] if n == 2 else []}
        for n, name in enumerate(('val_0.png', 'val_1.png', 'train_0.png'), 1)
    ]  # fmt: skip
    objects = []
    for n, one in enumerate(found[::2], 1):
        x, y, w, h = one['bbox']
        category = one['category_id'] if n % 4 else n // 4 % 2 + 1
        objects.append({
            'id': n, 'image_id': one['image_id'], 'category_id': category, 'iscrowd': 0,
            'bbox': [x + n % 4, y, w, h], 'area': w * h, 'corner_case': n % 3 == 0,
        })  # fmt: skip
    categories = [{'id': 1, 'name': 'car', 'frequency': 'f'}, {'id': 2, 'name': 'dog', 'frequency': 'r'}]
    for name in ('val.json', 'corner_case.json'):
        tiny.write(name, {'images': images, 'annotations': objects, 'categories': categories})


def weights(tiny):
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import atss_ext  # noqa: F401

    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(tiny.config).model)
    model.init_weights()
    path = tiny.root / 'weights.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def test_coda_and_lvis_online_offline_and_in_two_processes(tiny, in_process, tmp_path):
    """Of three images one process of two has one more, and the sampler gives one image twice."""
    config = tiny.config.read_text().replace("('box', 'disc')", "('car', 'dog')")
    tiny.write('tiny.py', config.replace('max_per_img=5', 'max_per_img=60') + CLASSIC)
    make_data(tiny)
    checkpoint, results = weights(tiny), tmp_path / 'results.json'
    run_test(in_process, tiny.config, checkpoint, '--out', results, '--work-dir', tmp_path / 'first')
    make_data(tiny, json.loads(results.read_text()))
    run_test(in_process, tiny.config, checkpoint, '--out', results, '--work-dir', tmp_path / 'one')
    wanted = figures_of_run(tmp_path / 'one')
    for name in TELLING:
        assert 0.05 < wanted[name] < 0.95, name
    for ann, options, prefix in OFFLINE:
        check_offline(in_process, tmp_path, results, tiny.root / ann, options, wanted, prefix)

    command = ['bash', str(REPO / 'tools/dist_test.sh'), str(tiny.config), str(checkpoint), '2', '--work-dir',
               str(tmp_path / 'two')]  # fmt: skip
    env = environment(PYTHON=sys.executable, PORT=free_port())
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert figures_of_run(tmp_path / 'two') == wanted


def test_free_names_online_and_mapped_offline(in_process, tmp_path):
    """NamedMetric of a run is tools/map_names.py and tools/evaluate.py of what the run wrote."""
    root = tmp_path / 'data'
    root.mkdir()
    for n, scene in SCENES.items():
        cv2.imwrite(str(root / f'{n}.png'), draw(SIZE, scene)[..., ::-1])
    annotations = []
    for n, (image, category, box) in enumerate(OBJECTS, 1):
        x, y, w, h = box
        annotations.append({
            'id': n, 'image_id': image, 'category_id': category, 'bbox': box, 'area': w * h, 'iscrowd': 0,
            'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]], 'corner_case': image == 1,
        })  # fmt: skip
    images = [
        {'id': n, 'file_name': f'{n}.png', 'height': SIZE[0], 'width': SIZE[1], 'neg_category_ids': [10, 30],
         'not_exhaustive_category_ids': []}
        for n in SCENES
    ]  # fmt: skip
    categories = [
        {'id': 30, 'name': 'car', 'synonyms': ['red square'], 'frequency': 'r'},
        {'id': 10, 'name': 'dog', 'synonyms': ['green square'], 'frequency': 'f'},
    ]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (root / 'val.json').write_text(json.dumps(content))
    config, results, mapped = tmp_path / 'config.py', tmp_path / 'results.json', tmp_path / 'mapped.json'
    config.write_text(OPEN_ENDED.replace('{root}', root.as_posix()))
    run_test(in_process, config, '--out', results, '--work-dir', tmp_path / 'run')
    assert {row['name'] for row in json.loads(results.read_text())} == {
        'red square', 'green square', 'blue square',
    }  # fmt: skip
    code, said = in_process(
        'map_names.py', results, '--ann', root / 'val.json', '--encoder', 'none', '--out', mapped
    )
    assert code == 0, said
    assert said == 'note: 1 detections whose names fit no category were left away\n'
    wanted = figures_of_run(tmp_path / 'run')
    for prefix in ('coda', 'coco', 'lvis'):
        shares = [wanted[f'names_{prefix}/{how}'] for how in ('synonym', 'none', 'detections')]
        assert shares == pytest.approx([4 / 5, 1 / 5, 5])
        options = ('--kind', prefix, '--metric', 'bbox', 'segm', *(('--fixed',) if prefix == 'lvis' else ()))
        check_offline(in_process, tmp_path, mapped, root / 'val.json', options, wanted, prefix)
    # Cars: one whole, one with IoU 0.75; dogs: one of two.
    assert wanted['coco/bbox_AR@100'] == pytest.approx(((0.6 + 1) / 2 + 0.5) / 2)
    assert wanted['coda/segm_AR_agnostic_corner'] == pytest.approx((0.6 + 1) / 2)
