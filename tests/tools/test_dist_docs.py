"""Every command of docs/gpu_jobs.md, run as it stands with a `docker`, `srun` and `python` that record.

What `python` is told goes through the tools' own parsers. The jobs themselves are run by test_dist.py,
test_dist_elastic.py, test_dist_vlsam.py and docker/check.sh.
"""

import os
import subprocess
from pathlib import Path

import pytest
from doc_pages import blocks_of, commands_of
from mmengine.config import Config
from tiny_coco import REPO, load_tool

TEXT = (REPO / 'docs/gpu_jobs.md').read_text()
R50, VLSAM = 'configs/atss/atss_r50_fpn_1x_coco.py', 'configs/vlsam/vlsam_llava1.5-7b_sam-vit-h.py'
EPOCH_12 = 'work_dirs/atss_r50_fpn_1x_coco/epoch_12.pth'
TRAIN = ['python', 'tools/launch.py', '8', 'tools/train.py', R50, '--launcher', 'pytorch']
SRUN = ['srun', '--partition=gpu', '--job-name=street', '--gres=gpu:8']
COMPOSE = ['docker', 'compose', '-f', 'docker/compose.yaml']

# Command -> what it comes down to; of docker/run.sh what it starts in the container.
COMMANDS = {
    f'tools/dist_train.sh {R50} 8': TRAIN,
    f'tools/dist_test.sh {R50} {EPOCH_12} 8 --out detections.json': [
        'python', 'tools/launch.py', '8', 'tools/test.py', R50, EPOCH_12, '--launcher', 'pytorch', '--out',
        'detections.json',
    ],
    f'MAX_RESTARTS=3 tools/dist_vlsam.sh photos 8 --config {VLSAM}': [
        'python', 'tools/launch.py', '8', 'tools/vlsam.py', 'photos', '--launcher', 'pytorch', '--config',
        VLSAM,
    ],
    f'MAX_RESTARTS=3 tools/dist_train.sh {R50} 8 --work-dir work_dirs/street': [
        *TRAIN, '--work-dir', 'work_dirs/street',
    ],
    f'NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 tools/dist_train.sh {R50} 8': TRAIN,
    f'NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 tools/dist_train.sh {R50} 8': TRAIN,
    'NNODES=2:4 NODE_RANK=0 MASTER_ADDR=10.0.0.1 RUN_ID=street MAX_RESTARTS=3 '
    f'tools/dist_train.sh {R50} 8': TRAIN,
    'GPUS=16 GPUS_PER_NODE=8 SRUN_ARGS="--requeue --time=12:00:00" '
    f'tools/slurm_train.sh gpu street {R50} work_dirs/street --resume': [
        *SRUN, '--ntasks=16', '--ntasks-per-node=8', '--cpus-per-task=5', '--kill-on-bad-exit=1', '--requeue',
        '--time=12:00:00', 'python', '-u', 'tools/train.py', R50, '--work-dir=work_dirs/street',
        '--launcher=slurm', '--resume',
    ],
    f'GPUS=8 tools/slurm_test.sh gpu street {R50} work_dirs/street/epoch_12.pth': [
        *SRUN, '--ntasks=8', '--ntasks-per-node=8', '--cpus-per-task=5', '--kill-on-bad-exit=1', 'python',
        '-u', 'tools/test.py', R50, 'work_dirs/street/epoch_12.pth', '--launcher=slurm',
    ],
    'srun --partition=gpu --ntasks=8 --ntasks-per-node=8 --gres=gpu:8 --kill-on-bad-exit=1 python '
    f'tools/vlsam.py photos --config {VLSAM} --launcher slurm': [
        'srun', '--partition=gpu', '--ntasks=8', '--ntasks-per-node=8', '--gres=gpu:8',
        '--kill-on-bad-exit=1', 'python', 'tools/vlsam.py', 'photos', '--config', VLSAM,
        '--launcher', 'slurm',
    ],
    'docker build -f docker/Dockerfile -t atss_ext .': [
        'docker', 'build', '-f', 'docker/Dockerfile', '-t', 'atss_ext', '.',
    ],
    'docker build -f docker/Dockerfile -t atss_ext --build-arg TORCH_CUDA_ARCH_LIST="9.0" .': [
        'docker', 'build', '-f', 'docker/Dockerfile', '-t', 'atss_ext', '--build-arg',
        'TORCH_CUDA_ARCH_LIST=9.0', '.',
    ],
    'mkdir -p data work_dirs': [],
    f'GPUS=8 CONFIG={R50} docker compose -f docker/compose.yaml up train': [*COMPOSE, 'up', 'train'],
    f'GPUS=8 CONFIG={R50} CHECKPOINT={EPOCH_12} docker compose -f docker/compose.yaml up test': [
        *COMPOSE, 'up', 'test',
    ],
    'GPUS=8 INPUT=data/photos docker compose -f docker/compose.yaml up vlsam': [*COMPOSE, 'up', 'vlsam'],
    'docker compose -f docker/compose.yaml run --rm shell': [*COMPOSE, 'run', '--rm', 'shell'],
    f'docker/run.sh train {R50} 8': ['tools/dist_train.sh', R50, '8', '--resume'],
    f'docker/run.sh test {R50} {EPOCH_12} 8': ['tools/dist_test.sh', R50, EPOCH_12, '8'],
    f'docker/run.sh vlsam data/photos 8 --config {VLSAM}': [
        'tools/dist_vlsam.sh', 'data/photos', '8', '--config', VLSAM,
    ],
    'docker/run.sh shell python tools/vlsam.py data/street.jpg --config configs/vlsam/vlsam_world.py': [
        'python', 'tools/vlsam.py', 'data/street.jpg', '--config', 'configs/vlsam/vlsam_world.py',
    ],
    'docker/check.sh': ['buildah'],
}  # fmt: skip


def test_every_command_is_listed():
    assert commands_of('docs/gpu_jobs.md') == list(COMMANDS)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A checkout beside the pictures of the commands, and programs that write down what they are told."""
    for name in ('configs', 'tools', 'docker'):
        (tmp_path / name).symlink_to(REPO / name)
    for name in ('photos', 'data/photos', 'bin'):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'data/street.jpg').touch()
    for name in ('docker', 'srun', 'python', 'buildah'):
        script = tmp_path / 'bin' / name
        script.write_text('#!/bin/bash\nprintf "%s\\n" "${0##*/}" "$@" >>"$RECORD"\nexit "${CODE:-0}"\n')
        script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_tool(words: list[str]) -> None:
    """What comes behind `python` is read by the tool's own parser."""
    name = next(word for word in words if word.endswith('.py') and word != 'tools/launch.py')
    load_tool(name.removeprefix('tools/')).parse_args(words[words.index(name) + 1 :])


@pytest.mark.parametrize('line', COMMANDS)
def test_command(line, folder):
    record = folder / 'record'
    # The check builds for minutes: here it ends with its first word to buildah.
    stopped = line == 'docker/check.sh'
    words = f'{line} --base none' if stopped else line
    unset = {'PYTHON', 'NNODES', 'NODE_RANK', 'GPUS', 'SRUN_ARGS', 'MAX_RESTARTS'}
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {'PATH': f'{folder}/bin:{env["PATH"]}', 'RECORD': str(record), 'CODE': '3' if stopped else '0'}
    done = subprocess.run(
        ['bash', '-c', words], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == (1 if stopped else 0), done.stderr
    said = record.read_text().splitlines() if record.exists() else []
    if stopped:
        assert said[0] == 'buildah'
    elif line.startswith('docker/run.sh'):
        assert said[said.index('atss_ext') + 1 :] == COMMANDS[line]
    else:
        assert said == COMMANDS[line]
    if 'python' in COMMANDS[line]:
        check_tool(COMMANDS[line][COMMANDS[line].index('python') :])


def test_the_config_trains_by_fsdp(tmp_path):
    (snippet,) = blocks_of('docs/gpu_jobs.md', 'python')
    (tmp_path / 'sharded.py').write_text(snippet)
    config = Config.fromfile(tmp_path / 'sharded.py')
    assert config.runner_type == 'FlexibleRunner'
    assert config.strategy.type == 'atss_ext.ShardedStrategy'
    assert config.model.backbone.depth == 101
