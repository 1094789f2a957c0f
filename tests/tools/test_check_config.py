"""tools/analysis/check_config.py on literal configs, and on mmdet's own."""

from pathlib import Path

import pytest
from mmengine.config import Config
from tiny_coco import REPO, load_tool

TYPOS = """
_base_ = 'tiny.py'
foo = 3
used = 0.5
train_pipeline = []
optim_wraper = dict(optimizer=dict(lr=0.1))
optim_wrapper = dict(optimizer=dict(lrr=used), paramwise_cfg=dict(norm_decay_mul=0.0), accumulative_count=2)
train_dataloader = dict(batchsize=4)
env_cfg = dict(cudnn_benchmrk=True)
model = dict(
    bbox_head=dict(num_clases=3, loss_cls=dict(gama=1.0)),
    backbone=dict(type='ResNett'),
    train_cfg=dict(assigner=dict(topkk=9), alowed_border=0))
"""


@pytest.fixture(scope='module')
def tool():
    return load_tool('analysis/check_config.py')


@pytest.fixture
def check(tool, capsys):
    """Run the tool; return exit code and the parts of its output by heading."""

    def run(*args: object) -> tuple[int, dict[str, list[str]]]:
        code = 0
        try:
            tool.main([str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code
        text = capsys.readouterr().out
        parts: dict[str, list[str]] = {'': []}
        name = ''
        for line in text.splitlines():
            if line.startswith('# ---- '):
                name = line.removeprefix('# ---- ').rstrip('-').split('(')[0].strip()
            parts.setdefault(name, []).append(line.removeprefix('#   '))
        parts['text'] = [text]
        return code, parts

    return run


def test_keys_that_nothing_reads_are_named(tiny, check):
    """Every typo, and nothing else."""
    code, parts = check(tiny.write('typos.py', TYPOS), '--strict')
    assert code == 1
    found = parts['keys that nothing reads'][1:]
    assert found == [
        "env_cfg.cudnn_benchmrk: env_cfg takes no key 'cudnn_benchmrk' (did you mean 'cudnn_benchmark'?)",
        'foo: neither the runner nor another line of its file uses it',
        "model.backbone.type: no registry has the type 'ResNett' (did you mean 'ResNet'?)",
        "model.bbox_head.loss_cls.gama: FocalLoss takes no key 'gama' (did you mean 'gamma'?)",
        "model.bbox_head.num_clases: atss_ext.ATSSHead takes no key 'num_clases' "
        "(did you mean 'num_classes'?)",
        "model.train_cfg.assigner.topkk: atss_ext.ATSSAssigner takes no key 'topkk' (did you mean 'topk'?)",
        'optim_wraper: neither the runner nor another line of its file uses it '
        "(did you mean 'optim_wrapper'?)",
        "optim_wrapper.accumulative_count: OptimWrapper takes no key 'accumulative_count' "
        "(did you mean 'accumulative_counts'?)",
        "optim_wrapper.optimizer.lrr: SGD takes no key 'lrr' (did you mean 'lr'?)",
        'optim_wrapper.paramwise_cfg.norm_decay_mul: optim_wrapper.paramwise_cfg takes no key '
        "'norm_decay_mul' (did you mean 'norm_decay_mult'?)",
        "train_dataloader.batchsize: train_dataloader takes no key 'batchsize' (did you mean 'batch_size'?)",
        'train_pipeline: a new value does not reach what its base file made of the old one '
        "(did you mean 'tta_pipeline'?)",
        "model.train_cfg.alowed_border: no class of the model seems to read a key 'alowed_border' "
        "(did you mean 'allowed_border'?) (a guess)",
    ]
    assert check(tiny.root / 'typos.py')[0] == 0  # a report, unless --strict
    assert check(tiny.config, '--strict')[0] == 0
    code, parts = check(tiny.config, '--cfg-options', 'model.train_cfg.foo=1')
    assert 'model.train_cfg.foo' in parts['keys that nothing reads'][1]


def test_the_resolved_config_can_be_pasted(tiny, check):
    """The whole output, saved to a file, is the same config."""
    config = tiny.write('typos.py', TYPOS)
    _, parts = check(config)
    pasted = tiny.write('pasted.py', parts['text'][0])
    assert Config.fromfile(pasted).to_dict() == Config.fromfile(config).to_dict()
    longest = max(parts['text'][0].splitlines(), key=lambda line: 0 if line.startswith('#') else len(line))
    assert len(longest) <= 111  # 110 and a comma
    assert '    backbone=dict(' in parts['model']


HEIR = """
_base_ = ['tiny.py']
model = dict(backbone=dict(_delete_=True, type='SSDVGG', depth=16), bbox_head=dict(stacked_convs=2))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=0.1)]
work_dir = 'there'
"""


def test_changes_against_the_base(tiny, check):
    """Changed, added, removed by _delete_, and an element taken out of a list."""
    _, parts = check(tiny.write('heir.py', HEIR))
    found = parts['changes against its bases'][1:-1]
    backbone = Config.fromfile(tiny.config).model.backbone
    removed = [
        f'- model.backbone.{key} = {backbone[key]!r}' for key in backbone if key not in ('type', 'depth')
    ]
    assert sorted(found) == sorted([
        "~ model.backbone.type: 'ResNet' -> 'SSDVGG'",
        '~ model.backbone.depth: 18 -> 16',
        *removed,
        '~ model.bbox_head.stacked_convs: 1 -> 2',
        "- param_scheduler.0 = {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, "
        "'end': 6}",
        "+ work_dir = 'there'",
    ])  # fmt: skip
    assert check(tiny.config)[1]['changes against its bases'][1] == 'it has no base'
    _, parts = check(tiny.config, '--against', tiny.root / 'heir.py')
    assert '~ model.bbox_head.stacked_convs: 2 -> 1' in parts[f'changes against {tiny.root}/heir.py']


def test_the_chain_of_files(tiny, check):
    """Every file, by the name its heir uses and where it lies; package::path is resolved."""
    import mmdet

    configs = Path(mmdet.__file__).parent / '.mim' / 'configs'
    _, parts = check(tiny.write('heir.py', "_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'\n"))
    assert parts['files, heirs before their bases'][1:-1] == [
        str(tiny.root / 'heir.py'),
        f'  mmdet::atss/atss_r50_fpn_1x_coco.py  ({configs}/atss/atss_r50_fpn_1x_coco.py)',
        f'    ../_base_/datasets/coco_detection.py  ({configs}/_base_/datasets/coco_detection.py)',
        f'    ../_base_/schedules/schedule_1x.py  ({configs}/_base_/schedules/schedule_1x.py)',
        f'    ../_base_/default_runtime.py  ({configs}/_base_/default_runtime.py)',
    ]
    assert parts['keys that nothing reads'][1:] == ['none']


MMDET = [
    'atss/atss_r50_fpn_1x_coco.py',
    'atss/atss_r50_fpn_8xb8-amp-lsj-200e_coco.py',
    'detr/detr_r50_8xb2-150e_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'tood/tood_r50_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'gfl/gfl_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet_l_8xb32-300e_coco.py',
    'vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco.py',
    'tood/tood_r101-dconv-c3-c5_fpn_ms-2x_coco.py',
    'albu_example/mask-rcnn_r50_fpn_albu-1x_coco.py',
    'yolox/yolox_s_8xb8-300e_coco.py',
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
]


def test_mmdets_own_configs_have_no_unread_key(tool):
    """No false alarm: hooks, wrappers, DCN, albumentations, keys popped by builders and heads."""
    import mmdet

    from atss_ext.cli.config_chain import read_chain
    from atss_ext.cli.config_keys import find_unread

    configs = Path(mmdet.__file__).parent / '.mim' / 'configs'
    alarms = {
        name: find_unread(Config.fromfile(configs / name), read_chain(configs / name).flat())
        for name in MMDET
    }
    assert {name: found for name, found in alarms.items() if found} == {}


LEFT_OVER = {
    'cudnn_benchmark',
    'data',
    'interval',
    'max_iters',
    'test_pipeline',
    'backend_args',
    'test_evaluator.eval_mode',
    'test_evaluator.type',
    'train_cfg.by_epoch',  # of solov2-light, whose loop refuses it
    'model.neck.force_grad_on_level',
    'model.panoptic_head.strides',
    'model.rpn_head.stages.0.sampling',
    'model.track_head.loss_bbox',
    'model.track_head.strides',
}


@pytest.mark.slow
def test_few_alarms_in_all_of_mmdets_configs(tool):
    """750 configs of mmdet 3.3: everything reported was looked up, and is indeed read by nothing."""
    import mmdet

    from atss_ext.cli.config_chain import read_chain
    from atss_ext.cli.config_keys import find_unread

    configs = Path(mmdet.__file__).parent / '.mim' / 'configs'
    alarms = set()
    for path in sorted(configs.glob('*/*.py')):
        try:
            cfg = Config.fromfile(path)
        except (ImportError, FileNotFoundError):
            continue  # of other packages
        # mmpretrain's classes need mmpretrain; a fragment has no scope to look names up in.
        if 'mmpretrain' not in str(cfg) and 'default_scope' in cfg:
            alarms |= {
                item.path.split(',')[0] for item in find_unread(cfg, read_chain(path).flat()) if item.certain
            }
    assert alarms == LEFT_OVER


def test_our_configs_have_no_unread_key(tool):
    from atss_ext.cli.config_chain import read_chain
    from atss_ext.cli.config_keys import find_unread

    paths = sorted((REPO / 'configs').glob('*/*.py'))
    assert {
        str(path): found
        for path in paths
        if path.parent.name != '_base_'
        and (found := find_unread(Config.fromfile(path), read_chain(path).flat()))
    } == {}


def test_kwargs_are_followed():
    """Through super(), super(Class, self), names taken out of **kwargs; anything else takes all."""
    from atss_ext.cli.signatures import parameters

    class Base:
        def __init__(self, base=1):
            pass

    class Middle(Base):
        def __init__(self, middle=1, **kwargs):
            self.popped = kwargs.pop('popped', 1)
            super().__init__(**kwargs)

    class Skips(Middle):
        def __init__(self, skips=1, **kwargs):
            super(Middle, self).__init__(**kwargs)

    class Swallows(Base):
        def __init__(self, own=1, **kwargs):
            super().__init__()

    class Stores(Base):
        def __init__(self, own=1, **kwargs):
            self.all = kwargs

    def function(a, *, b, **rest):
        pass

    assert parameters(Middle) == {'base', 'middle', 'popped'}
    assert parameters(Skips) == {'base', 'skips'}
    assert parameters(Swallows) == {'own'}
    assert parameters(Stores) is None
    assert parameters(function) is None


def test_a_config_of_the_pure_python_style(tiny, check):
    """``with read_base()``: types are classes, and their keys are checked all the same."""
    text = (
        'from mmengine.config import read_base\nwith read_base():\n    from .tiny import *\n'
        'from mmdet.models import ATSS\nmodel.update(type=ATSS, bakbone=1)\n'
    )
    _, parts = check(tiny.write('lazy.py', text))
    assert [line.split(':')[0] for line in parts['keys that nothing reads'][1:]] == ['model.bakbone']
    assert parts['changes against its bases'][1] == 'its bases are Python imports: name one by --against'
