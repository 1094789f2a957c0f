"""When a build compiles for CUDA: asked for in vain it says why; fake toolkits stand in for real ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.version.cuda


def build(tmp_path, **environment: str) -> subprocess.CompletedProcess:
    """``setup.py build_ext`` in a copy of the sources, with no CUDA toolkit in reach but those named."""
    tree = tmp_path / 'tree'
    shutil.copytree(
        ROOT / 'atss_ext', tree / 'atss_ext', ignore=shutil.ignore_patterns('*.so', '.mim', '__pycache__')
    )
    for name in ('setup.py', 'pyproject.toml', 'README.md'):
        shutil.copy2(ROOT / name, tree / name)
    kept = {key: value for key, value in os.environ.items() if key not in ('CUDA_HOME', 'FORCE_CUDA')}
    command = [sys.executable, '-W', 'ignore', '-c', NO_TOOLKIT, 'build_ext']
    return subprocess.run(
        command, cwd=tree, env={**kept, 'PATH': '/nowhere', **environment}, capture_output=True, text=True
    )


# The usual place of a toolkit is hidden, so that the machine's own does not count.
NO_TOOLKIT = """
import pathlib, sys
exists = pathlib.Path.exists
pathlib.Path.exists = lambda path, **options: '/usr/local/cuda' not in str(path) and exists(path, **options)
sys.argv = ['setup.py', *sys.argv[1:]]
sys.path.insert(0, '.')
import setup
"""


def fake_toolkit(folder: Path, release: str) -> Path:
    (folder / 'bin').mkdir(parents=True)
    (folder / 'include').mkdir()
    (folder / 'include/cuda_runtime.h').touch()
    nvcc = folder / 'bin/nvcc'
    nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {release}, V{release}.1"\n')
    nvcc.chmod(0o755)
    return folder


def test_cuda_without_a_toolkit_is_one_sentence(tmp_path):
    done = build(tmp_path, FORCE_CUDA='1')
    assert done.returncode == 1
    reason = (
        'there is no CUDA toolkit with nvcc' if CUDA else f'torch {torch.__version__} is built without CUDA'
    )
    assert done.stderr.splitlines()[-1].startswith(f'atss_ext: FORCE_CUDA is set, but {reason}')


def test_a_toolkit_of_another_release_is_one_sentence(tmp_path):
    home = fake_toolkit(tmp_path / 'toolkit', '9.2')
    done = build(tmp_path, FORCE_CUDA='1', CUDA_HOME=str(home))
    assert done.returncode == 1
    reason = (
        f'torch is built with CUDA {CUDA}, but {home} is release 9.2' if CUDA else 'is built without CUDA'
    )
    assert reason in done.stderr.splitlines()[-1]


@pytest.mark.parametrize('wish', ['0', ''])
def test_without_a_wish_a_machine_without_gpu_builds_for_the_cpu(wish, tmp_path):
    """It gets as far as the compiler, which is not there; a toolkit that is there is not asked."""
    home = fake_toolkit(tmp_path / 'toolkit', '9.2')
    hidden = {'CUDA_VISIBLE_DEVICES': ''}
    done = build(tmp_path, FORCE_CUDA=wish, CUDA_HOME=str(home), CXX='no-such-compiler', **hidden)
    assert done.returncode == 1
    assert "no C++ compiler found (looked for 'no-such-compiler' and g++)" in done.stderr.splitlines()[-1]
