"""--cfg-options and --amp: what mmdet takes is taken, what nothing would read is refused."""

import json

import pytest
from tiny_coco import Tiny

from atss_ext.cli import UserError, base_parser, load_config


@pytest.fixture
def load(tiny: Tiny, monkeypatch, capsys):
    """Load the tiny config with options; return it and what was said."""
    monkeypatch.setenv('LOCAL_RANK', '0')

    def run(*options: str, amp: bool = False):
        capsys.readouterr()
        args = base_parser('').parse_args([str(tiny.config), '--cfg-options', *options])
        cfg = load_config(args, amp)
        return cfg, capsys.readouterr().err

    return run


def test_amp_brings_its_keys(load):
    cfg, said = load('optim_wrapper.dtype=bfloat16', amp=True)
    assert said == ''
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.dtype == 'bfloat16'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    cfg, _ = load('optim_wrapper.loss_scale=512.', amp=True)
    assert cfg.optim_wrapper.loss_scale == 512
    with pytest.raises(UserError, match="nothing reads a key 'dtype' of optim_wrapper"):
        load('optim_wrapper.dtype=bfloat16')
    with pytest.raises(UserError, match=r"key 'dtyp' of optim_wrapper \(did you mean 'dtype'\?\)"):
        load('optim_wrapper.dtyp=bfloat16', amp=True)


@pytest.mark.parametrize(
    ('options', 'section', 'expected', 'dropped'),
    [
        (
            ['optim_wrapper.dtype=bfloat16', 'optim_wrapper.type=AmpOptimWrapper'],
            'optim_wrapper',
            {
                'type': 'AmpOptimWrapper',
                'dtype': 'bfloat16',
                'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9},
            },
            '',
        ),
        (
            ['model.bbox_head.loss_bbox.type=SmoothL1Loss', 'model.bbox_head.loss_bbox.beta=0.1'],
            'model.bbox_head.loss_bbox',
            {'type': 'SmoothL1Loss', 'beta': 0.1, 'loss_weight': 2.0},
            '',
        ),
        (
            [
                'model.train_cfg.assigner.type=MaxIoUAssigner',
                'model.train_cfg.assigner.pos_iou_thr=0.5',
                'model.train_cfg.assigner.neg_iou_thr=0.4',
            ],
            'model.train_cfg.assigner',
            {'type': 'MaxIoUAssigner', 'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4},
            'topk',
        ),
        (
            ['train_cfg.type=IterBasedTrainLoop', 'train_cfg.max_iters=10'],
            'train_cfg',
            {'type': 'IterBasedTrainLoop', 'max_iters': 10, 'val_interval': 1},
            'max_epochs',
        ),
        (
            ['train_cfg._delete_=True', 'train_cfg.by_epoch=False', 'train_cfg.max_iters=10'],
            'train_cfg',
            {'by_epoch': False, 'max_iters': 10},
            '',
        ),
        (
            ['default_hooks.ema.type=EMAHook', 'default_hooks.ema.momentum=0.1'],
            'default_hooks.ema',
            {'type': 'EMAHook', 'momentum': 0.1},
            '',
        ),
    ],
    ids=lambda value: value[0].split('=')[0] if isinstance(value, list) else None,
)
def test_a_type_of_the_same_command_decides_what_is_read(load, options, section, expected, dropped):
    cfg, said = load(*options)
    for key in section.split('.'):
        cfg = cfg[key]
    assert cfg.to_dict() == expected
    note = f'note: --cfg-options {section}.type: {section} no longer takes {dropped}, dropped\n'
    assert said == (note if dropped else '')


def test_a_loop_without_type_is_chosen_by_by_epoch(load, tiny):
    text = "_base_ = 'tiny.py'\ntrain_cfg = dict(_delete_=True, by_epoch=True, max_epochs=3)\n"
    tiny.config.with_name('base.py').write_text(tiny.config.read_text())
    tiny.config.write_text(text.replace('tiny.py', 'base.py'))
    cfg, said = load('train_cfg.by_epoch=False', 'train_cfg.max_iters=10')
    assert cfg.train_cfg.to_dict() == {'by_epoch': False, 'max_iters': 10}
    assert 'no longer takes max_epochs, dropped' in said
    cfg, said = load('train_cfg.max_epochs=4')
    assert (cfg.train_cfg.to_dict(), said) == ({'by_epoch': True, 'max_epochs': 4}, '')


@pytest.mark.parametrize(
    ('options', 'refusal'),
    [
        # Given for the type before, which the same command replaces.
        (
            ['model.bbox_head.loss_bbox.type=SmoothL1Loss', 'model.bbox_head.loss_bbox.eps=1e-6'],
            "nothing reads a key 'eps' of model.bbox_head.loss_bbox",
        ),
        (
            ['train_cfg.type=IterBasedTrainLoop', 'train_cfg.max_iters=9', 'train_cfg.max_epochs=2'],
            "nothing reads a key 'max_epochs' of train_cfg",
        ),
        # mmengine refuses the two together.
        (['train_cfg.by_epoch=False'], "nothing reads a key 'by_epoch' of train_cfg"),
        # Deep inside what is new.
        (
            ['model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.chekpoint=x'],
            "nothing reads a key 'chekpoint' of model.backbone.init_cfg (did you mean 'checkpoint'?)",
        ),
        (['train_dataloadr.batch_size=1'], "key 'train_dataloadr' (did you mean 'train_dataloader'?)"),
    ],
    ids=lambda value: value[-1].split('=')[0] if isinstance(value, list) else None,
)
def test_what_nothing_would_read_is_refused(load, options, refusal):
    with pytest.raises(UserError) as caught:
        load(*options)
    assert refusal in str(caught.value)


def test_a_new_top_level_key_is_noted(load):
    """A hook may read it from ``runner.cfg``."""
    cfg, said = load('my_flag=1', 'my_settings.depth=2')
    assert cfg.my_flag == 1
    assert cfg.my_settings.depth == 2
    assert said.splitlines() == [
        'note: --cfg-options my_flag: the config has no my_flag; it is there for code of your own to read',
        'note: --cfg-options my_settings.depth: the config has no my_settings; it is there for code of your '
        'own to read',
    ]


def test_another_loop_and_assigner_train(tiny, in_process, tmp_path):
    """The whole way: three iterations instead of an epoch, by mmdet's assigner, in bfloat16."""
    code, said = in_process(
        'train.py', tiny.config, '--work-dir', tmp_path / 'work', '--amp', '--cfg-options',
        'optim_wrapper.dtype=bfloat16', 'train_cfg.type=IterBasedTrainLoop', 'train_cfg.max_iters=3',
        'train_cfg.val_interval=3', 'train_dataloader.sampler.type=InfiniteSampler',
        'default_hooks.checkpoint.by_epoch=False', 'log_processor.by_epoch=False',
        'model.train_cfg.assigner.type=MaxIoUAssigner', 'model.train_cfg.assigner.pos_iou_thr=0.5',
        'model.train_cfg.assigner.neg_iou_thr=0.4', 'model.bbox_head.loss_bbox.type=SIoULoss',
        'model.bbox_head.loss_bbox.neg_gamma=True', 'my_flag=1',
    )  # fmt: skip
    assert code == 0, said
    assert (tmp_path / 'work' / 'iter_3.pth').exists()
    (scalars,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [row['step'] for row in rows if 'loss_bbox' in row] == [1, 2, 3]


def test_a_key_that_the_new_type_needs_is_named(tiny, in_process):
    code, said = in_process(
        'train.py', tiny.config, '--cfg-options', 'model.train_cfg.assigner.type=MaxIoUAssigner',
        'model.train_cfg.assigner.pos_iou_thr=0.5',
    )  # fmt: skip
    assert code == 2, said
    assert said.splitlines()[-1] == (
        "error: MaxIoUAssigner needs a value for 'neg_iou_thr'; add it to the config"
    )
