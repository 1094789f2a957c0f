"""Several processes: the dist_*.sh scripts with real ones on the CPU, the slurm_*.sh with a recorded srun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ports import free_port
from tiny_coco import REPO, environment
from torch import distributed as dist

from atss_ext.cli import run_tool


def _script(name: str, *args: object, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    env = environment(PYTHON=sys.executable, PORT=free_port(), **extra)
    command = ['bash', str(REPO / 'tools' / name), *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False)


def test_two_processes_train_test_and_stop_together(tiny, tmp_path):
    """An epoch on two processes ends; both saw half of the data, and the weights are the same on both.

    Then two processes test the result, and an image that only the second one loads stops both.
    """
    work_dir = tmp_path / 'work dir'  # a blank: everything is quoted
    done = _script('dist_train.sh', tiny.config, 2, '--work-dir', work_dir, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'gloo instead of nccl' in done.stderr
    assert done.stderr.count('gloo instead of nccl') == 1
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    # 3 images with boxes, padded to 4 for two ranks, batch 2: one step each.
    assert checkpoint['meta']['iter'] == 1
    log = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert json.loads(log[0])['iter'] == 1

    out = tmp_path / 'out' / 'results.json'
    done = _script(
        'dist_test.sh',
        tiny.config,
        work_dir / 'epoch_1.pth',
        2,
        '--out',
        out,
        '--work-dir',
        work_dir,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    entries = json.loads(out.read_text())
    assert {entry['image_id'] for entry in entries} == {1, 2}
    assert len(entries) == 10  # 5 an image: nothing twice

    (tiny.root / 'images' / 'train_1.png').write_bytes(b'no image')
    shuffle = 'train_dataloader.sampler.shuffle=False'  # image 1 then is the second process's
    done = _script(
        'dist_train.sh', tiny.config, 2, '--work-dir', work_dir, '--cfg-options', shuffle, cwd=tmp_path,
        ATSS_RANK_GRACE='1',
    )  # fmt: skip
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith('error')]
    assert said[0].startswith(f'error (rank 1): image {tiny.root}/images/train_1.png cannot be read')
    assert 'Traceback' not in done.stderr


def test_an_error_of_all_processes_is_said_once(tmp_path):
    # On a busy machine the first process may come later than the other's usual grace.
    done = _script('dist_train.sh', 'missing.py', 2, cwd=tmp_path, ATSS_RANK_GRACE='90')
    assert done.returncode == 2
    assert done.stderr.count('config file missing.py does not exist') == 1
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('name', 'too_few'),
    [
        ('dist_train.sh', ['c.py']),
        ('dist_test.sh', ['c.py', 'x.pth']),
        ('slurm_train.sh', ['part', 'job', 'c.py']),
        ('slurm_test.sh', ['part', 'job', 'c.py']),
    ],
)
def test_missing_arguments_give_the_usage(name, too_few, tmp_path):
    done = _script(name, *too_few, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f'usage: {REPO}/tools/{name} ')
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def recorded_srun(tmp_path):
    """A folder with an `srun` that writes down its arguments: there is no Slurm to run them."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    srun = folder / 'srun'
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" >"$RECORD"\n')
    srun.chmod(0o755)
    return folder


@pytest.mark.parametrize('name', ['train', 'test'])
def test_slurm_scripts_call_srun(name, recorded_srun, tmp_path):
    record = tmp_path / 'record'
    last = 'work dir' if name == 'train' else 'x y.pth'
    done = _script(
        f'slurm_{name}.sh', 'gpu part', 'my job', 'c d.py', last, '--cfg-options', 'a.b=[1, 2]', cwd=tmp_path,
        PATH=f'{recorded_srun}:{os.environ["PATH"]}', RECORD=str(record),
        GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='3', SRUN_ARGS='--time=5 --exclusive',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tool = [str(sys.executable), '-u', f'{REPO}/tools/{name}.py', 'c d.py']
    assert record.read_text().splitlines() == [
        '--partition=gpu part', '--job-name=my job', '--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4',
        '--cpus-per-task=3', '--kill-on-bad-exit=1', '--time=5', '--exclusive',
        *tool, *(['--work-dir=work dir'] if name == 'train' else ['x y.pth']), '--launcher=slurm',
        '--cfg-options', 'a.b=[1, 2]',
    ]  # fmt: skip


def test_slurm_defaults(recorded_srun, tmp_path):
    """Eight GPUs on one node, and an empty SRUN_ARGS adds nothing (not even an empty argument)."""
    record = tmp_path / 'record'
    path = f'{recorded_srun}:{os.environ["PATH"]}'
    done = _script('slurm_test.sh', 'p', 'j', 'c.py', 'x.pth', cwd=tmp_path, PATH=path, RECORD=str(record))
    assert done.returncode == 0, done.stderr
    assert record.read_text().splitlines()[:8] == [
        '--partition=p', '--job-name=j', '--gres=gpu:8', '--ntasks=8', '--ntasks-per-node=8',
        '--cpus-per-task=5', '--kill-on-bad-exit=1', sys.executable,
    ]  # fmt: skip


def test_a_finished_command_leaves_the_other_processes(tmp_path):
    """Threads of a group left open may abort the process while it ends, after all of its work was done."""

    def tool():
        dist.init_process_group('gloo', init_method=f'file://{tmp_path}/meeting', rank=0, world_size=1)
        dist.all_reduce(torch.ones(3))

    assert run_tool(tool) == 0
    assert not dist.is_initialized()
