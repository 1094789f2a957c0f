"""The script behind `make demo` and `make test`: what it refuses, repairs and skips."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup_env():
    spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'tools/setup_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools/setup_env.py'), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_missing_compiler_is_one_sentence(tmp_path):
    result = run('--venv', str(tmp_path / 'env'), PATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.startswith('atss_ext: no C++ compiler found (looked for c++, g++, clang++, cl)')
    assert 'ATSS_EXT_NO_NATIVE=1' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / 'env').exists()


def test_named_compiler_that_is_missing(tmp_path):
    result = run('--venv', str(tmp_path / 'env'), PATH=str(tmp_path), CXX='no-such-compiler -O2')
    assert 'looked for no-such-compiler)' in result.stderr


@pytest.mark.parametrize('version', [(3, 9), (3, 13), (2, 7)])
def test_unsupported_python_is_one_sentence(setup_env, version):
    with pytest.raises(setup_env.SetupError, match=rf'is Python {version[0]}\.{version[1]}, but .*make demo'):
        setup_env.check_version(version, '/usr/bin/python')


def test_another_supported_python_is_found_on_path(setup_env, monkeypatch, tmp_path):
    shim = tmp_path / 'python3.12'  # a version manager's shim: there, but it does not run
    shim.write_text('#!/bin/sh\nexit 127\n')
    working = tmp_path / 'python3.10'
    working.write_text('#!/bin/sh\nexit 0\n')
    shim.chmod(0o755)
    working.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(setup_env.sys, 'version_info', (3, 13, 0))
    assert setup_env.find_python() == str(working)


def test_half_built_environment_is_built_anew(setup_env, tmp_path):
    folder = tmp_path / 'env'
    python = folder / 'bin/python'
    python.parent.mkdir(parents=True)
    (folder / setup_env.OWNER_MARK).touch()
    python.write_text('cut short')
    python.chmod(0o755)
    setup_env.ensure_venv(folder, python)
    assert subprocess.run([python, '-c', 'import pip']).returncode == 0


def test_a_folder_that_is_no_environment_is_left_alone(setup_env, tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(setup_env.SetupError, match='is no virtual environment: remove it, or name another'):
        setup_env.ensure_venv(tmp_path, tmp_path / 'bin/python')
    assert (tmp_path / 'thesis.tex').read_text() == 'years of work'


def test_readiness_follows_tree_and_extras(setup_env, tmp_path):
    state = tmp_path / 'state.json'
    now = setup_env.fingerprint()
    assert not setup_env.is_ready(state, ['mmdet'], now)
    state.write_text('{"extras": ["mmd')  # killed while writing
    assert not setup_env.is_ready(state, ['mmdet'], now)
    state.write_text(json.dumps({'extras': ['dev', 'mmdet'], 'fingerprint': now}))
    assert setup_env.is_ready(state, ['mmdet'], now)
    assert not setup_env.is_ready(state, ['mmdet', 'vlsam'], now)
    assert not setup_env.is_ready(state, ['mmdet'], 'another tree')


def test_check_names_what_is_missing(setup_env, tmp_path):
    bare = tmp_path / 'env'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(bare)], check=True)
    assert "No module named 'torch'" in setup_env.check(bare / 'bin/python')
    assert setup_env.check(Path(sys.executable)) is None


def test_make_says_when_python_is_missing():
    result = subprocess.run(
        ['make', 'env', 'PYTHON=no-such-python'], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert 'atss_ext: no-such-python is not installed; install Python 3.10' in result.stderr
