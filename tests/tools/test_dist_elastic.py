"""A process that dies during training, and a model divided by FSDP: real processes on the CPU."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ports import free_port
from tiny_coco import REPO, environment

from atss_ext.cli import UserError, run_tool

# 3 images with boxes, padded to 4: two steps an epoch on each of two processes.
# Every process makes weights of its own, so that the first one's have to come to all.
SETTINGS = """
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_epochs=3, val_interval=9)
randomness = dict(seed=0, diff_rank_seed=True)
"""
DDP = "_base_ = 'tiny.py'" + SETTINGS
FSDP = "_base_ = ['tiny.py', 'atss_ext::_base_/fsdp.py']" + SETTINGS + 'train_cfg.update(val_interval=3)'
DEATH = """
custom_imports = dict(imports=['death'], allow_failed_imports=False)
custom_hooks = [dict(type='DieOnce')]
"""
DIE_ONCE = """
import os
import signal
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class DieOnce(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        died = Path(runner.work_dir) / 'died'
        if runner.rank == 1 and runner.epoch == 1 and batch_idx == 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def train(tiny, config: str, work_dir: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    path = tiny.write(f'{work_dir.name}.py', config)
    tiny.write('death.py', DIE_ONCE)
    env = environment(PYTHON=sys.executable, PORT=free_port(), **extra)
    env['PYTHONPATH'] += f'{os.pathsep}{tiny.root}'
    script = str(REPO / 'tools/dist_train.sh')
    command = ['bash', script, str(path), '2', '--work-dir', str(work_dir)]
    return subprocess.run(
        command, cwd=tiny.root, env=env, capture_output=True, text=True, timeout=280, check=False
    )


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(work_dir / 'epoch_3.pth', weights_only=False)['state_dict']


def first_steps(work_dir: Path) -> list[int]:
    """The step that each start of a run began with."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(log.read_text().splitlines()[0])['step'] for log in logs]


def test_a_killed_process_and_sharding_change_no_weight(tiny):
    """DDP, killed in the second epoch and started again, ends with the weights of FSDP left in peace."""
    killed, sharded = tiny.root / 'killed', tiny.root / 'sharded'
    done = train(tiny, DDP + DEATH, killed, MAX_RESTARTS='2')
    assert done.returncode == 0, done.stderr[-3000:]
    assert (killed / 'died').exists()
    assert re.findall(r'resumed epoch: (\d+), iter: (\d+)', done.stdout + done.stderr)[0] == ('1', '2')
    assert first_steps(killed) == [1, 3]
    done = train(tiny, FSDP, sharded)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = weights(killed), weights(sharded)
    assert list(one) == list(other)
    for name, value in one.items():
        assert value.shape == other[name].shape, name
        assert torch.allclose(value, other[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
def test_a_killed_process_of_a_sharded_model(tiny):
    """The optimizer's state comes back whole: momentum lost in the second epoch would show in the third."""
    whole, killed = tiny.root / 'whole', tiny.root / 'killed'
    done = train(tiny, FSDP, whole)
    assert done.returncode == 0, done.stderr[-3000:]
    done = train(tiny, FSDP + DEATH, killed, MAX_RESTARTS='1')
    assert done.returncode == 0, done.stderr[-3000:]
    assert first_steps(killed) == [1, 3]
    one, other = weights(whole), weights(killed)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ('error', 'code', 'said'),
    [
        (
            RuntimeError('[pair.cc:553] Connection closed by peer [127.0.0.1]:1'),
            1,
            'another process of this run',
        ),
        (UserError('the value 3 is too large'), 2, 'the value 3 is too large'),
    ],
)
def test_a_lost_process_is_no_user_error(error, code, said, capsys, monkeypatch):
    """The launcher starts nothing again after a user's error."""
    monkeypatch.setenv('RANK', '0')

    def tool() -> None:
        raise error

    assert run_tool(tool) == code
    assert capsys.readouterr().err.startswith(f'error: {said}')


BRIDGE = 'atssbr0'
HOSTS = {'atss_a': '10.213.7.1', 'atss_b': '10.213.7.2'}


@pytest.fixture
def two_hosts():
    """Two network namespaces that only reach each other."""
    ip = shutil.which('ip')
    assert ip, 'this test needs iproute2 and root'
    subprocess.run([ip, 'link', 'add', BRIDGE, 'type', 'bridge'], check=True)
    try:
        subprocess.run([ip, 'link', 'set', BRIDGE, 'up'], check=True)
        for number, (name, address) in enumerate(HOSTS.items()):
            outer, inner = f'atssv{number}', f'atssw{number}'
            for command in (
                f'netns add {name}',
                f'link add {outer} type veth peer name {inner} netns {name}',
                f'link set {outer} master {BRIDGE} up',
                f'-n {name} addr add {address}/24 dev {inner}',
                f'-n {name} link set {inner} up',
                f'-n {name} link set lo up',
            ):
                subprocess.run([ip, *command.split()], check=True)
        yield ip
    finally:
        for name in HOSTS:
            subprocess.run([ip, 'netns', 'del', name], check=False)
        subprocess.run([ip, 'link', 'del', BRIDGE], check=False)


@pytest.mark.slow
def test_two_hosts_train_and_outlive_a_killed_process(two_hosts, tiny):
    """The process that dies is the second host's; the first host's starts again with it."""
    work_dir = tiny.root / 'hosts'
    path = tiny.write('hosts.py', DDP + DEATH)
    tiny.write('death.py', DIE_ONCE)
    runs = []
    for rank, (name, address) in enumerate(HOSTS.items()):
        env = environment(
            PYTHON=sys.executable, NNODES='2', NODE_RANK=str(rank), MASTER_ADDR=HOSTS['atss_a'], PORT='29511',
            LOCAL_ADDR=address, RUN_ID='hosts', MAX_RESTARTS='1', GLOO_SOCKET_IFNAME=f'atssw{rank}',
        )  # fmt: skip
        env['PYTHONPATH'] += f'{os.pathsep}{tiny.root}'
        script = str(REPO / 'tools/dist_train.sh')
        command = [two_hosts, 'netns', 'exec', name, 'bash', script, str(path), '1', '--work-dir', work_dir]
        runs.append(
            subprocess.Popen(
                command,
                cwd=tiny.root,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
    try:
        said = [run.communicate(timeout=280)[0] for run in runs]
    finally:
        for run in runs:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert [run.returncode for run in runs] == [0, 0], '\n'.join(text[-3000:] for text in said)
    assert (work_dir / 'died').exists()
    assert first_steps(work_dir) == [1, 3]
    assert (work_dir / 'epoch_3.pth').exists()


WAIT = """
import os
import time
from pathlib import Path

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class WaitForOthers(Hook):
    def before_train_epoch(self, runner):
        seen = Path(runner.work_dir) / f'{runner.rank}_of_{get_world_size()}_epoch_{runner.epoch}'
        seen.with_suffix('.partial').write_text(str(os.getpid()))
        seen.with_suffix('.partial').rename(seen)
        # The second epoch begins alone and the third in company, until the launcher ends this process.
        if (runner.epoch, get_world_size()) in ((1, 1), (2, 2)) and not (seen.parent / 'left').exists():
            time.sleep(120)
"""
WAITING = """
custom_imports = dict(imports=['waiting'], allow_failed_imports=False)
custom_hooks = [dict(type='WaitForOthers')]
"""


def kill(run: subprocess.Popen, work_dir: Path, rank: int) -> None:
    """A launcher and its process, which has a session of its own."""
    if run.poll() is None:
        for pid in (run.pid, *{int(path.read_text()) for path in work_dir.glob(f'{rank}_of_*')}):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def until(condition, runs, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert runs[0].poll() is None
        time.sleep(0.1)


@pytest.mark.slow
def test_a_machine_comes_and_is_lost(tiny):
    """Two launchers on one machine: the second joins in the second epoch, and is killed in the third."""
    work_dir = tiny.root / 'elastic'
    path = tiny.write('elastic.py', DDP + WAITING)
    tiny.write('waiting.py', WAIT)
    port = free_port()
    runs: list[subprocess.Popen] = []

    def start(rank: int) -> None:
        env = environment(
            PYTHON=sys.executable, NNODES='1:2', NODE_RANK=str(rank), PORT=port, LOCAL_ADDR='127.0.0.1',
            RUN_ID='elastic', MAX_RESTARTS='1',
        )  # fmt: skip
        env['PYTHONPATH'] += f'{os.pathsep}{tiny.root}'
        command = ['bash', str(REPO / 'tools/dist_train.sh'), str(path), '1', '--work-dir', str(work_dir)]
        with open(tiny.root / f'{rank}.log', 'w') as log:
            runs.append(
                subprocess.Popen(
                    command, cwd=tiny.root, env=env, stdout=log, stderr=log, start_new_session=True
                )
            )

    try:
        start(0)
        until((work_dir / '0_of_1_epoch_1').exists, runs)
        start(1)
        until((work_dir / '1_of_2_epoch_2').exists, runs)
        (work_dir / 'left').touch()
        kill(runs[1], work_dir, 1)
        assert runs[0].wait(timeout=200) == 0, (tiny.root / '0.log').read_text()[-3000:]
    finally:
        for rank, run in enumerate(runs):
            kill(run, work_dir, rank)
    # Alone, in company from the last checkpoint, alone again from that of the company.
    assert sorted(path.name for path in work_dir.glob('0_of_*')) == [
        *('0_of_1_epoch_0', '0_of_1_epoch_1', '0_of_1_epoch_2', '0_of_2_epoch_1', '0_of_2_epoch_2')
    ]
    assert (work_dir / 'epoch_3.pth').exists()
