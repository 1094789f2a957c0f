"""The script that runs the suite in another family's environment: what of an earlier run it keeps."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path) -> Path:
    """A small tree under git, with the script."""
    tree = tmp_path / 'tree'
    (tree / 'tools').mkdir(parents=True)
    shutil.copy(ROOT / 'tools/check_family.sh', tree / 'tools')
    (tree / '.gitignore').write_text('/work_dirs/\n')
    subprocess.run(['git', 'init', '-q', str(tree)], check=True)
    return tree


def copy(tree: Path) -> Path:
    """Runs the script up to the environment, which this interpreter refuses to make; the copy of the tree."""
    python = tree.parent / 'python'
    python.write_text('#!/bin/sh\ntest "$1" = -c\n')
    python.chmod(0o755)
    result = subprocess.run(
        [tree / 'tools/check_family.sh', 'onedl'],
        env={**os.environ, 'PYTHON': str(python)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (1, '')
    return tree / 'work_dirs/family-onedl'


def test_deleted_files_leave_the_copy(tree):
    for name in ('stays.py', 'goes away.py'):
        (tree / name).touch()
    family = copy(tree)
    assert (family / 'goes away.py').exists()
    for name in ('.venv/pyvenv.cfg', 'atss_ext/_C.abi3.so'):  # what the environment adds
        (family / name).parent.mkdir()
        (family / name).touch()
    (tree / 'goes away.py').unlink()
    copy(tree)
    assert not (family / 'goes away.py').exists()
    for name in ('stays.py', '.venv/pyvenv.cfg', 'atss_ext/_C.abi3.so'):
        assert (family / name).exists(), name


def test_a_copy_without_a_list_is_cleared(tree):
    family = tree / 'work_dirs/family-onedl'
    (family / '.venv').mkdir(parents=True)
    (family / 'unknown.py').touch()
    copy(tree)
    assert not (family / 'unknown.py').exists()
    assert (family / '.venv').exists()
