"""The script behind `make demo` and `make test`: what it refuses, repairs and skips."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
    with pytest.raises(
        setup_env.SetupError, match=r'is no virtual environment .*: remove it, or name another'
    ):
        setup_env.ensure_venv(tmp_path, tmp_path / 'bin/python')
    assert (tmp_path / 'thesis.tex').read_text() == 'years of work'


def test_an_environment_made_elsewhere_is_left_alone(setup_env, tmp_path):
    """Some tools make environments without pip; that is no reason to delete one."""
    (tmp_path / 'pyvenv.cfg').touch()
    with pytest.raises(setup_env.SetupError, match='is no virtual environment with a working pip'):
        setup_env.ensure_venv(tmp_path, tmp_path / 'bin/python')
    assert (tmp_path / 'pyvenv.cfg').exists()


@pytest.fixture
def tree(setup_env, monkeypatch, tmp_path) -> Path:
    """A copy of this tree without the library, whose environment sees it and this one's packages."""
    tree = tmp_path / 'tree'
    ignore = shutil.ignore_patterns('__pycache__', '_C*', '.mim')
    shutil.copytree(ROOT / 'atss_ext', tree / 'atss_ext', ignore=ignore)
    for name in ('pyproject.toml', 'setup.py'):
        shutil.copy(ROOT / name, tree / name)
    monkeypatch.setattr(setup_env, 'ROOT', tree)
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path / "shadow"}{os.pathsep}{tree}')
    (tmp_path / 'shadow').mkdir()
    monkeypatch.delenv('ATSS_EXT_NO_NATIVE', raising=False)

    def ensure_venv(folder: Path, python: Path) -> None:
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        (folder / setup_env.OWNER_MARK).touch()

    monkeypatch.setattr(setup_env, 'ensure_venv', ensure_venv)
    return tree


@pytest.fixture
def installs(setup_env, monkeypatch) -> list[list[str]]:
    """The extras of every install, none of which is carried out."""
    calls: list[list[str]] = []
    monkeypatch.setattr(setup_env, 'install', lambda python, extras: calls.append(extras))
    return calls


def shadow(tree: Path, module: str, text: str) -> None:
    """Puts a module before the installed one of the name."""
    folder = tree.parent / 'shadow' / module
    folder.mkdir()
    (folder / '__init__.py').write_text(text)


def add_distribution(tree: Path, name: str, version: str) -> None:
    """Makes a distribution count as installed."""
    folder = tree.parent / f'shadow/{name.replace("-", "_")}-{version}.dist-info'
    folder.mkdir()
    (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')


def add_library(tree: Path, torch: str) -> None:
    """A library that does not load, and for which torch it was built."""
    (tree / 'atss_ext/_C.abi3.so').touch()
    (tree / 'atss_ext/_C.torch').write_text(torch)


def test_without_the_native_library(setup_env, tree, installs, monkeypatch):
    """The way out that a machine without a compiler is told; the state knows that the library is missing."""
    add_library(tree, metadata.version('torch'))
    monkeypatch.setenv('PATH', str(tree))
    monkeypatch.setenv('ATSS_EXT_NO_NATIVE', '1')
    assert setup_env.prepare('env', ['mmdet'])
    assert not setup_env.prepare('env', ['mmdet'])
    monkeypatch.delenv('ATSS_EXT_NO_NATIVE')
    with pytest.raises(setup_env.SetupError, match='no C\\+\\+ compiler found'):
        setup_env.prepare('env', ['mmdet'])
    assert installs == [['mmdet']]


def test_a_library_that_does_not_load_is_no_reason_to_build_anew(setup_env, tree, installs, capfd):
    add_library(tree, metadata.version('torch'))
    kept = tree / 'env/kept'
    kept.parent.mkdir()
    kept.touch()
    with pytest.raises(setup_env.SetupError, match='atss_ext itself fails'):
        setup_env.prepare('env', ['mmdet'])
    assert 'atss_ext: the native library does not load' in capfd.readouterr().err
    assert kept.exists()
    assert installs == [['mmdet']]


def test_an_error_in_the_tree_is_shown_as_it_is(setup_env, tree, installs, capfd, monkeypatch):
    monkeypatch.setenv('ATSS_EXT_NO_NATIVE', '1')
    (tree / 'atss_ext/compat/mmcv_ops.py').write_text('import torch\nprnit(torch)\n')
    with pytest.raises(setup_env.SetupError, match=r'atss_ext itself fails .* mend it') as caught:
        setup_env.prepare('env', ['mmdet'])
    assert not isinstance(caught.value, setup_env.BrokenPackages)
    error = capfd.readouterr().err
    assert f'File "{tree}/atss_ext/compat/mmcv_ops.py", line 2' in error
    assert "NameError: name 'prnit' is not defined" in error
    assert installs == [['mmdet']]


def test_a_missing_system_library_is_one_sentence(setup_env, tree, installs):
    missing = 'libGL.so.1: cannot open shared object file: No such file or directory'
    shadow(tree, 'cv2', f'raise ImportError({missing!r})')
    with pytest.raises(setup_env.SetupError, match=r'library libGL.so.1, .*apt-get install libgl1 libglib'):
        setup_env.prepare('env', ['mmdet'])
    assert installs == [['mmdet']]


def test_broken_packages_are_installed_anew_once(setup_env, tree, installs):
    missing = 'libcudnn.so.9: cannot open shared object file: No such file or directory'
    shadow(tree, 'torch', f'raise ImportError({missing!r})')
    stale = tree / 'env/stale'
    stale.parent.mkdir()
    stale.touch()
    with pytest.raises(setup_env.BrokenPackages, match=r'does not work \(ImportError: libcudnn'):
        setup_env.prepare('env', ['mmdet'])
    assert not stale.exists()
    assert installs == [['mmdet'], ['mmdet']]


def test_broken_packages_of_the_user_stay(setup_env, tree, installs, monkeypatch):
    shadow(tree, 'torch', 'raise ImportError("half a torch")')
    monkeypatch.setattr(setup_env.sys, 'prefix', str(tree.parent))
    with pytest.raises(setup_env.BrokenPackages, match='half a torch'):
        setup_env.prepare('', ['mmdet'])
    assert installs == [['mmdet']]


def test_readiness_follows_tree_and_extras(setup_env, tmp_path):
    state = tmp_path / 'state.json'
    wanted = {'fingerprint': setup_env.fingerprint(), 'native': False}
    packages = {'torch': '2.8.0'}
    assert not setup_env.is_ready(state, ['mmdet'], wanted, packages)
    state.write_text('{"extras": ["mmd')  # killed while writing
    assert not setup_env.is_ready(state, ['mmdet'], wanted, packages)
    setup_env.remember(state, {**wanted, 'extras': ['mmdet', 'vlsam']})
    assert setup_env.is_ready(state, ['mmdet'], wanted, packages)
    assert not setup_env.is_ready(state, ['mmdet', 'docs'], wanted, packages)
    assert not setup_env.is_ready(state, ['mmdet'], {**wanted, 'fingerprint': 'another tree'}, packages)
    assert not setup_env.is_ready(state, ['mmdet'], wanted, {})  # an interpreter that does not run


def test_what_dev_holds_is_not_installed_anew(setup_env, tmp_path):
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    held = re.findall(r'atss_ext\[(\w+)\]', ' '.join(project['optional-dependencies']['dev']))
    assert sorted(held) == list(setup_env.HELD_BY_DEV)
    state, packages = tmp_path / 'state.json', {'torch': '2.8.0'}
    wanted = {'fingerprint': setup_env.fingerprint(), 'native': False}
    setup_env.remember(state, {**wanted, 'extras': ['dev', 'mmdet']})
    assert all(setup_env.is_ready(state, ['mmdet', extra], wanted, packages) for extra in held)
    assert not setup_env.is_ready(state, ['mmdet', 'onedl'], wanted, packages)


def test_the_library_is_built_again_for_another_torch(setup_env, tree, tmp_path):
    state = tmp_path / 'state.json'
    wanted = {'fingerprint': setup_env.fingerprint(), 'native': True}
    setup_env.remember(state, {**wanted, 'extras': ['mmdet']})
    assert not setup_env.is_ready(state, ['mmdet'], wanted, {'torch': '2.8.0'})
    add_library(tree, '2.8.0')
    assert setup_env.is_ready(state, ['mmdet'], wanted, {'torch': '2.8.0'})
    assert not setup_env.is_ready(state, ['mmdet'], wanted, {'torch': '2.4.1'})
    assert setup_env.is_ready(state, ['mmdet'], {**wanted, 'native': False}, {'torch': '2.4.1'})
    (tree / 'atss_ext/_C.torch').unlink()  # built by nobody knows whom
    assert not setup_env.is_ready(state, ['mmdet'], wanted, {'torch': '2.8.0'})


@pytest.fixture
def ready(setup_env, tree, installs, monkeypatch) -> Path:
    """A finished environment for the extra mmdet; its state file."""
    monkeypatch.setattr(setup_env, 'check', lambda python: None)
    monkeypatch.setenv('ATSS_EXT_NO_NATIVE', '1')
    assert setup_env.prepare('env', ['mmdet'])
    assert not setup_env.prepare('env', ['mmdet'])
    return tree / 'env' / setup_env.STATE


def killed(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_an_extra_cut_short_is_taken_up_again(setup_env, ready, monkeypatch):
    """Also by a run that wants nothing of the extra: packages it needs may be half replaced."""
    with monkeypatch.context() as patch:
        patch.setattr(setup_env, 'add', killed)
        with pytest.raises(KeyboardInterrupt):
            setup_env.prepare('env', ['mmdet', 'dev'])
    assert setup_env.prepare('env', ['mmdet'])


def test_for_one_more_extra_nothing_is_built(setup_env, ready, installs, monkeypatch):
    """pip is asked for the extra of what is installed; a tree that has changed is installed whole."""
    asked = []
    monkeypatch.setattr(setup_env, 'pip', lambda python, arguments: asked.append(arguments))
    assert setup_env.prepare('env', ['mmdet', 'mim'])
    assert asked == [
        ['--only-binary=:all:', 'atss_ext[mim,mmdet]'],
        ['--only-binary=:all:', '--no-deps', 'openmim>=0.3.9'],
    ]
    assert installs == [['mmdet']]
    assert not setup_env.prepare('env', ['mim'])
    monkeypatch.setattr(setup_env, 'fingerprint', lambda: 'another tree')
    assert setup_env.prepare('env', ['mmdet', 'docs'])
    assert (len(asked), installs[-1]) == (2, ['docs', 'mim', 'mmdet'])


def test_the_record_is_written_whole_or_not_at_all(setup_env, ready, monkeypatch):
    monkeypatch.setattr(setup_env.os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
        setup_env.prepare('env', ['dev'])
    assert not ready.exists()


def test_a_changed_tree_is_installed_with_the_extras_of_before(setup_env, tree, ready, installs):
    (tree / 'pyproject.toml').write_text('changed')
    assert setup_env.prepare('env', ['lvis'])
    assert installs[-1] == ['lvis', 'mmdet']
    assert not setup_env.prepare('env', ['mmdet'])


@pytest.mark.parametrize(
    ('there', 'extra', 'sentence'),
    [
        (
            'onedl-mmcv',
            'mmdet',
            'extra mmdet would overwrite files of onedl-mmcv 2.3.6 in .*VENV=.venv-mmdet',
        ),
        ('mmengine', 'onedl', 'extra onedl would overwrite files of mmengine 2.3.6 in .*VENV=.venv-onedl'),
    ],
)
def test_families_are_not_mixed(setup_env, installs, tree, monkeypatch, there, extra, sentence):
    monkeypatch.setattr(setup_env, 'INSTALLED', f'print(\'[["{there}", "2.3.6"]]\')')
    with pytest.raises(setup_env.SetupError, match=rf'{sentence}.*pip uninstall {there}`'):
        setup_env.prepare('env', [extra])
    assert installs == []


def test_both_families_at_once_are_refused(setup_env, installs, tree, monkeypatch):
    monkeypatch.setattr(setup_env, 'INSTALLED', "print('[]')")
    with pytest.raises(setup_env.SetupError, match='extra mmdet would overwrite files of the extra onedl'):
        setup_env.prepare('env', ['mmdet', 'onedl'])
    assert installs == []


@pytest.mark.parametrize(('compiled', 'extra'), [(False, 'mmdet'), (True, 'mmdet-core')])
def test_an_mmcv_that_is_there_is_not_overwritten(setup_env, tree, monkeypatch, compiled, extra):
    commands = []
    monkeypatch.setattr(setup_env, 'pip', lambda python, arguments: commands.append(arguments))
    if compiled:
        add_distribution(tree, 'mmcv', '2.1.0')
    setup_env.install(Path(sys.executable), ['dev', 'mmdet'])
    assert f'{tree}[dev,{extra}]' in [command[-1] for command in commands]


def test_installed_distributions_by_normalised_name(setup_env, tree, tmp_path):
    add_distribution(tree, 'Onedl_MMCV', '2.3.6')
    packages = setup_env.installed(Path(sys.executable))
    assert packages['onedl-mmcv'] == '2.3.6'
    assert packages['torch'] == metadata.version('torch')
    assert setup_env.installed(tmp_path / 'no-such-python') == {}


def test_check_names_what_is_missing(setup_env, tmp_path):
    bare = tmp_path / 'env'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(bare)], check=True)
    with pytest.raises(setup_env.BrokenPackages, match="No module named 'cv2'"):
        setup_env.check(bare / 'bin/python')


def test_make_says_when_python_is_missing():
    result = subprocess.run(
        ['make', 'env', 'PYTHON=no-such-python'], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert 'atss_ext: no-such-python is not installed; install Python 3.10' in result.stderr
