"""tools/train.py: its options, and going on after a kill."""

import json
import signal

import pytest
import torch
from tiny_coco import environment, load_tool

KILL_HOOK = """
import os
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class KillInMidEpoch(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if os.environ.get('KILL_AT') == str(runner.iter):
            os.kill(os.getpid(), signal.SIGKILL)
"""

THREE_EPOCHS = """
_base_ = 'tiny.py'
custom_imports = dict(imports=['kill_hook'])
custom_hooks = [
    dict(type='KillInMidEpoch'),
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1, update_buffers=True, priority=49),
]
train_cfg = dict(max_epochs=3, val_interval=3)
train_dataloader = dict(num_workers=1)
"""


@pytest.fixture
def three_epochs(tiny):
    tiny.write('kill_hook.py', KILL_HOOK)
    return tiny.write('three.py', THREE_EPOCHS)


def _flat(value, prefix=''):
    """Every tensor and number of a nested state, by its path."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {prefix: value}
    return {path: leaf for key, item in items for path, leaf in _flat(item, f'{prefix}/{key}').items()}


def test_killed_and_resumed_training_ends_like_an_uninterrupted_one(run_tool, tiny, three_epochs, tmp_path):
    """Killed by SIGKILL in the middle of epoch 2 of 3, resumed: the end is the same, bit by bit.

    2 steps an epoch; the kill comes after the first step of epoch 2, so that epoch runs again from its
    start. The order of images depends on seed and epoch only, and no transform of the config is random.
    """
    module = {'PYTHONPATH': f'{tiny.root}:{environment()["PYTHONPATH"]}'}
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    done = run_tool('train.py', three_epochs, '--work-dir', whole, cwd=tmp_path, **module)
    assert done.returncode == 0, done.stderr

    killed = run_tool('train.py', three_epochs, '--work-dir', broken, cwd=tmp_path, KILL_AT='2', **module)
    assert killed.returncode == -signal.SIGKILL
    assert (broken / 'epoch_1.pth').exists()
    assert not (broken / 'epoch_2.pth').exists()

    resumed = run_tool('train.py', three_epochs, '--work-dir', broken, '--resume', cwd=tmp_path, **module)
    assert resumed.returncode == 0, resumed.stderr
    assert 'resumed epoch: 1, iter: 2' in resumed.stdout
    assert 'match the checkpoint' not in resumed.stderr

    one, other = (torch.load(folder / 'epoch_3.pth', weights_only=False) for folder in (whole, broken))
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        expected, found = _flat(one[part]), _flat(other[part])
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            same = torch.equal(value, found[key]) if isinstance(value, torch.Tensor) else value == found[key]
            assert same, f'{part}{key}'
    assert one['meta']['iter'] == other['meta']['iter'] == 6
    # The averaged weights are not the weights: the comparison above says something about both.
    assert not torch.equal(
        one['state_dict']['bbox_head.atss_cls.bias'], one['ema_state_dict']['module.bbox_head.atss_cls.bias']
    )
    rates = [
        [json.loads(line)['lr'] for line in path.read_text().splitlines() if '"lr"' in line]
        for path in sorted(broken.glob('*/vis_data/scalars.json'))
    ]
    # Warm-up from 0.1 of 0.01 over 6 steps; a tenth from the third epoch on. Epoch 2 stands in both logs.
    assert rates[-1] == pytest.approx([0.0046, 0.0064, 0.00082, 0.001], abs=1e-9)


def test_options_reach_the_runner(tiny, monkeypatch, in_process):
    """--amp, --auto-scale-lr, --resume PATH, --cfg-options, the priority of the work directory."""
    tool = load_tool('train.py')
    built = []

    class Runner:
        def train(self):
            pass

    monkeypatch.setattr(tool, 'build_runner', lambda cfg, chosen: built.append((cfg, chosen)) or Runner())
    checkpoint = tiny.root / 'some.pth'
    torch.save({}, checkpoint)
    code, said = in_process(
        'train.py', tiny.config, '--amp', '--auto-scale-lr', '--resume', checkpoint, '--cfg-options',
        'auto_scale_lr.base_batch_size=4', 'model.bbox_head.loss_cls.gamma=1.5',
        'train_dataloader.batch_size=1',
    )  # fmt: skip
    assert (code, said) == (0, '')
    cfg, chosen = built.pop()
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.auto_scale_lr == {'base_batch_size': 4, 'enable': True}
    assert (cfg.resume, cfg.load_from) == (True, str(checkpoint))
    assert cfg.model.bbox_head.loss_cls.gamma == 1.5
    assert chosen['train_dataloader.batch_size'] == 1
    assert cfg.work_dir == './work_dirs/tiny'

    tiny.write('own.py', "_base_ = 'tiny.py'\nwork_dir = 'of the config'\n")
    assert in_process('train.py', tiny.root / 'own.py') == (0, '')
    assert built.pop()[0].work_dir == 'of the config'
    assert in_process('train.py', tiny.root / 'own.py', '--work-dir', 'of the command') == (0, '')
    assert built.pop()[0].work_dir == 'of the command'


def test_resume_with_nothing_to_resume_says_so_and_trains(tiny, in_process, tmp_path):
    code, said = in_process('train.py', tiny.config, '--resume', '--work-dir', tmp_path / 'new')
    assert code == 0
    assert f'note: --resume: there is no checkpoint in {tmp_path}/new yet' in said
    assert (tmp_path / 'new' / 'epoch_1.pth').exists()


def test_resume_from_a_checkpoint_that_is_gone(tiny, in_process, tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'last_checkpoint').write_text('/gone/epoch_7.pth')
    code, said = in_process('train.py', tiny.config, '--resume', '--work-dir', tmp_path / 'work')
    assert code == 2
    assert 'last_checkpoint names /gone/epoch_7.pth, which does not exist' in said


def test_amp_on_the_cpu_computes_in_bfloat16(tiny, in_process, tmp_path, monkeypatch):
    """The convolutions of the head see bfloat16, the weights stay float32 and change."""
    seen = []
    forward = torch.nn.Conv2d.forward

    def spy(self, value):
        result = forward(self, value)
        seen.append(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.Conv2d, 'forward', spy)
    code, said = in_process(
        'train.py', tiny.config, '--amp', '--work-dir', tmp_path / 'amp', '--cfg-options', 'val_cfg=None',
        'val_dataloader=None', 'val_evaluator=None',
    )  # fmt: skip
    assert code == 0, said
    assert 'note: no GPU was found: mixed precision computes in bfloat16' in said
    assert set(seen) == {torch.bfloat16}
    weights = torch.load(tmp_path / 'amp' / 'epoch_1.pth', weights_only=False)['state_dict']
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_resuming_does_not_run_the_config_inside_the_checkpoint(tiny, in_process, tmp_path):
    """mmengine stores the config's source and would run it on resume."""
    assert in_process('train.py', tiny.config, '--work-dir', tmp_path / 'work')[0] == 0
    path, trace = tmp_path / 'work' / 'epoch_1.pth', tmp_path / 'ran'
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['cfg'] = checkpoint['meta']['config'] = f'open({str(trace)!r}, "w").close()'
    torch.save(checkpoint, path)
    options = ('--cfg-options', 'train_cfg.max_epochs=2')
    code, said = in_process(
        'train.py', tiny.config, '--resume', path, '--work-dir', tmp_path / 'next', *options
    )
    assert code == 0, said
    assert torch.load(tmp_path / 'next' / 'epoch_2.pth', weights_only=False)['meta']['epoch'] == 2
    assert not trace.exists()
