"""Checkpoints of mmengine under torch's restricted unpickler, and what it must go on refusing."""

import json
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler import OneCycleLR
from mmengine.runner import checkpoint as mmengine_checkpoint

import atss_ext
from atss_ext.compat import checkpoints

ROOT = pathlib.Path(atss_ext.__file__).parents[1]
# From 2.6 on torch restricts by default, and tells a class from the name it is allowed under.
RESTRICTS_BY_DEFAULT = hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint')


class Reduced:
    """Pickles as whatever call it is given."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def saved(tmp_path, content):
    path = tmp_path / 'checkpoint.pth'
    torch.save(content, path)
    return path


def respell(path, old, new):
    """Rename a module in a saved pickle."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, part in parts.items():
            if name.endswith('data.pkl'):
                assert old.encode() in part or new.encode() in part
                part = part.replace(b'c' + old.encode() + b'.', b'c' + new.encode() + b'.')
            archive.writestr(name, part)


@pytest.fixture
def own_loader():
    """mmengine with our loader of local files, for one test."""
    before = dict(mmengine_checkpoint.CheckpointLoader._schemes)
    checkpoints.register_loader()
    yield
    mmengine_checkpoint.CheckpointLoader._schemes = before


SCRIPT = """
import sys
from pathlib import Path
import numpy as np, torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from atss_ext.compat import checkpoints
checkpoints.force_restricted_loading()
checkpoints.register_loader()
torch.set_num_threads(1)

class Data(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b'), palette=np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8))
    def __len__(self):
        return 8
    def __getitem__(self, i):
        return dict(x=torch.randn(4, generator=torch.Generator().manual_seed(i)))

class Model(BaseModel):
    def __init__(self):
        super().__init__()
        linear, norm = torch.nn.Linear, torch.nn.BatchNorm1d
        self.layers = torch.nn.Sequential(linear(4, 3), norm(3), linear(3, 1))
    def forward(self, x, mode='tensor'):
        out = self.layers(x)
        return dict(loss=(out - 1).square().mean()) if mode == 'loss' else [out]
    def val_step(self, data):
        return self(**data)

class Metric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)
    def compute_metrics(self, results):
        return dict(acc=np.float64(0.5))

def loader(shuffle):
    return dict(batch_size=4, dataset=Data(), sampler=dict(type='DefaultSampler', shuffle=shuffle),
                collate_fn=dict(type='default_collate'))

def runner(work_dir, **how):
    return Runner(
        Model(), work_dir, train_dataloader=loader(True), val_dataloader=loader(False), val_cfg=dict(),
        val_evaluator=Evaluator(Metric()), train_cfg=dict(by_epoch=True, max_epochs=4),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
                         dict(type='OneCycleLR', eta_max=0.05, total_steps=8, by_epoch=False)],
        custom_hooks=[dict(type='EMAHook')], default_scope='mmengine', randomness=dict(seed=3),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='acc')),
        experiment_name=Path(work_dir).name, log_level='ERROR', **how)
"""


def run_script(tmp_path, code):
    script = tmp_path / 'train_small.py'
    script.write_text(SCRIPT + code)
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    done = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def plain(value):
    """Nested containers with arrays, tensors and histories as lists, to be compared with ==."""
    if isinstance(value, HistoryBuffer):
        return [part.tolist() for part in value.data]
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def test_a_resumed_run_ends_like_an_unbroken_one(tmp_path):
    unbroken, resumed = tmp_path / 'unbroken', tmp_path / 'resumed'
    run_script(tmp_path, f'runner({str(unbroken)!r}).train()')
    middle = torch.load(unbroken / 'epoch_2.pth', weights_only=True)
    assert type(middle['message_hub']['log_scalars']['train/loss']) is HistoryBuffer
    assert type(middle['message_hub']['runtime_info']['best_score']) is np.float64
    assert type(middle['meta']['dataset_meta']['palette']) is np.ndarray
    # Python source in the checkpoint, which mmengine would run when it resumes.
    trap = tmp_path / 'executed'
    middle['meta']['config'] = f'open({str(trap)!r}, "w")'
    torch.save(middle, unbroken / 'epoch_2.pth')

    run_script(
        tmp_path,
        f"""
runner({str(resumed)!r}, load_from={str(unbroken / 'epoch_2.pth')!r}, resume=True).train()
start = runner({str(tmp_path / 'loaded')!r}, load_from={str(unbroken / 'epoch_4.pth')!r})
start.call_hook('before_run')  # EMAHook makes its model there
start.load_or_resume()
torch.save(start.model.state_dict(), {str(tmp_path / 'loaded.pth')!r})
""",
    )
    assert not trap.exists()
    first, second = (torch.load(folder / 'epoch_4.pth', weights_only=True) for folder in (unbroken, resumed))
    for key in ('state_dict', 'ema_state_dict', 'optimizer'):
        assert plain(first[key]) == plain(second[key]), key
    annealing = [[s.pop('anneal_func', None) for s in end['param_schedulers']] for end in (first, second)]
    assert annealing == [[None, OneCycleLR._annealing_cos]] * 2
    assert plain(first['param_schedulers']) == plain(second['param_schedulers'])
    losses = [plain(end['message_hub']['log_scalars']['train/loss']) for end in (first, second)]
    assert losses[0] == losses[1]
    assert len(losses[0][0]) == 8
    assert plain(torch.load(tmp_path / 'loaded.pth', weights_only=True)) == plain(first['state_dict'])


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_arrays_and_scalars_of_both_numpy_spellings(tmp_path, core):
    arrays = [np.arange(6).reshape(2, 3).astype(code) for code in ('f8', 'f4', 'i8', 'i4', 'u1', '?')]
    content = dict(arrays=arrays, scalars=[array[1, 1] for array in arrays], empty=np.zeros((0, 4)))
    path = saved(tmp_path, content)
    respell(path, *(('numpy._core', core) if core == 'numpy.core' else ('numpy.core', core)))
    assert f'c{core}.multiarray' in pickle_of(path)
    loaded = checkpoints.load_from_local(str(path))
    for ours, original in zip(loaded['arrays'], arrays, strict=True):
        assert type(ours) is np.ndarray
        assert ours.dtype == original.dtype
        assert np.array_equal(ours, original)
    assert [type(ours) for ours in loaded['scalars']] == [type(value) for value in content['scalars']]
    assert loaded['scalars'] == content['scalars']
    assert loaded['empty'].shape == (0, 4)


def pickle_of(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith('data.pkl'))).decode('latin1')


def refused(path):
    with pytest.raises(pickle.UnpicklingError) as caught:
        checkpoints.load_from_local(str(path))
    message = str(caught.value)
    assert '\n' not in message
    assert str(path) in message
    return message


def test_a_foreign_class_is_refused_by_name_and_not_executed(tmp_path, own_loader):
    trap = tmp_path / 'executed'
    path = saved(tmp_path, dict(state_dict={}, extra=Reduced(pathlib.Path.touch, (pathlib.Path(str(trap)),))))
    assert 'pathlib' in refused(path)
    with pytest.raises(pickle.UnpicklingError, match='weights only'):
        mmengine_checkpoint.load_checkpoint(torch.nn.Linear(1, 1), str(path))
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists(), 'the trap does not work'


HOSTILE = {
    # Every module and every builtin can be reached from here.
    'getattr': lambda: Reduced(getattr, (HistoryBuffer, '__init__')),
    'getattr of a tensor': lambda: Reduced(getattr, (torch.Tensor, 'min')),
    'eval': lambda: Reduced(eval, ('1 + 1',)),
    'objects': lambda: np.array([{'a': 1}], dtype=object),
    'records': lambda: np.zeros(2, dtype=[('a', 'f8'), ('b', 'O')]),
    'scalar type': lambda: Reduced(np.dtype, ('O',)),
    'scheduler': lambda: Reduced(OneCycleLR.__mro__[2], (1,)),
}
if RESTRICTS_BY_DEFAULT:
    # Eight bytes of the file as a pointer to an object.
    HOSTILE['forged pointer'] = lambda: Reduced(np.ndarray, ((1,), 'O', bytearray(8)))


@pytest.mark.parametrize('name', HOSTILE)
def test_nothing_but_what_mmengine_saves_is_allowed(tmp_path, name):
    message = refused(saved(tmp_path, dict(state_dict={}, extra=HOSTILE[name]())))
    assert 'torch.serialization.add_safe_globals' in message


def test_a_file_cannot_change_the_meaning_of_a_numeric_type(tmp_path):
    # Flags of 63 would make NumPy take the numbers of every float64 array for pointers to objects.
    state = (3, '<', None, None, None, -1, -1, 63)
    loaded = checkpoints.load_from_local(
        str(saved(tmp_path, dict(dtype=Reduced(np.dtype, ('f8', False, True), state))))
    )
    assert loaded['dtype'].flags == 0
    assert np.dtype('f8').flags == 0


def test_an_array_made_by_numpys_own_function_can_be_saved_again(tmp_path):
    # What a program has that allowed NumPy's _reconstruct beside ours.
    array = np.arange(3.0).view(checkpoints._NumpyArray)
    loaded = checkpoints.load_from_local(str(saved(tmp_path, dict(array=array))))['array']
    assert type(loaded) is np.ndarray
    assert loaded.tolist() == [0, 1, 2]


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        checkpoints.load_from_local(str(tmp_path / 'nowhere.pth'))
    text = tmp_path / 'text.pth'
    text.write_text('not a checkpoint')
    path = saved(tmp_path, dict(state_dict=dict(weight=torch.zeros(1000))))
    path.write_bytes(path.read_bytes()[:2000])
    for file in (text, path):
        message = refused(file)
        assert 'cannot be read (' in message
        # torch's own message recommends to load without restriction.
        assert 'weights_only' not in message


def test_a_type_that_does_not_exist_is_damage(tmp_path):
    assert 'cannot be read (' in refused(saved(tmp_path, dict(extra=Reduced(np.dtype, ('no type',)))))


def test_map_location_is_passed_on(tmp_path):
    path = saved(tmp_path, dict(state_dict=dict(weight=torch.ones(2))))
    assert checkpoints.load_from_local(str(path), 'meta')['state_dict']['weight'].is_meta
    # torch 2.4 says it as an UnpicklingError, later ones as a RuntimeError.
    with pytest.raises((RuntimeError, pickle.UnpicklingError), match='restore data location'):
        checkpoints.load_from_local(str(path), 'nonsense')


def test_explanations_name_the_class():
    error = pickle.UnpicklingError(
        'Weights only load failed.\n WeightsUnpickler error: Unsupported global: GLOBAL a.b.C was not allowed'
    )
    message = checkpoints.explain_refusal(error, 'x.pth')
    assert message.startswith("Checkpoint x.pth holds 'a.b.C', which")
    assert checkpoints.explain_refusal(pickle.UnpicklingError(message), 'x.pth') == message
    assert 'cannot be read' in checkpoints.explain_refusal(EOFError(), 'x.pth')


def test_forced_restriction_reaches_an_explicitly_unrestricted_load(tmp_path, monkeypatch):
    path = saved(tmp_path, Reduced(eval, ('1 + 1',)))
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)
    assert torch.load(path, weights_only=False) == 2
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    checkpoints.force_restricted_loading()
    assert torch.load(path, weights_only=False) == 2
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    # Through monkeypatch, so that it does not outlast the test.
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '')
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD')
    checkpoints.force_restricted_loading()
    with pytest.raises(pickle.UnpicklingError, match='eval'):
        torch.load(path, weights_only=False)


def test_allowing_twice_adds_nothing_and_survives_a_removal(tmp_path):
    atss_ext.compat.apply()
    before = list(torch.serialization.get_safe_globals())
    atss_ext.compat.apply()
    assert len(torch.serialization.get_safe_globals()) == len(before)
    path = saved(tmp_path, dict(history=HistoryBuffer([1.0], [1])))
    try:
        torch.serialization.clear_safe_globals()
        assert checkpoints.load_from_local(str(path))['history'].mean() == 1
    finally:
        torch.serialization.add_safe_globals(
            [entry for entry in before if entry not in torch.serialization.get_safe_globals()]
        )


@pytest.mark.parametrize('with_mmengine', [True, False])
def test_importing_the_package_stays_light(tmp_path, with_mmengine):
    path = saved(tmp_path, dict(array=np.arange(3)))
    heavy = ['torchvision', 'mmcv', 'mmdet', 'mmengine.runner', 'mmengine.optim', 'cv2', 'matplotlib.pyplot']
    code = f"""
import json, sys
if not {with_mmengine}:
    sys.modules['mmengine'] = None
import torch, numpy
before = set(sys.modules)
import atss_ext
from atss_ext.compat import checkpoints
new = set(sys.modules) - before
array = checkpoints.load_from_local({str(path)!r})['array']
print(json.dumps([sorted(new & set({heavy!r})), array.tolist()]))
"""
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], [0, 1, 2]]
