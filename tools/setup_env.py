"""Prepares the environment `make demo` and `make test` run in, and does nothing when it is ready.

Needs nothing but a Python (3.6 or newer, so that an old one can be told what is missing). Everything but
atss_ext itself comes from wheels; mmcv is not compiled.

    python3 tools/setup_env.py --venv .venv --extras mmdet,dev
    python3 tools/setup_env.py --venv "" --extras mmdet        # into the active environment
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 10), (3, 11), (3, 12))
# Written into environments made here; only such a one is ever removed.
OWNER_MARK = 'made-by-atss_ext'
BUILD_TOOLS = ['setuptools>=70.1,<81', 'ninja']
# mim runs mmdet's commands; its own requirements pin a setuptools that cannot build wheels.
WITHOUT_DEPENDENCIES = {'dev': ['openmim>=0.3.9']}
# Published as source only; without torch in its build it compiles nothing, and comes without ops.
SOURCE_ONLY = {'onedl': ['onedl-mmcv']}
# What a working environment can do: mmdet's models import (mmcv._ext is served), our registry answers.
CHECK = (
    'import torch, torchvision, pycocotools.mask, mmdet.models, atss_ext.ops as ops; '
    'from atss_ext.registry import MODELS; '
    'MODELS.get("ATSSHead") or exit("atss_ext.ATSSHead is not registered"); '
    'ops.available() or exit("the native library does not load")'
)


class SetupError(Exception):
    """Something the user can mend; the message is one sentence."""


def main():
    """Parses arguments, prepares the environment, prints one sentence on failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', default='.venv', help='folder of the environment; empty: the active one')
    parser.add_argument('--extras', default='mmdet', help='comma-separated extras of pyproject.toml')
    args = parser.parse_args()
    started = time.time()
    try:
        changed = prepare(args.venv, [extra for extra in args.extras.split(',') if extra])
    except SetupError as error:
        sys.exit('atss_ext: {}'.format(error))
    except KeyboardInterrupt:
        sys.exit('atss_ext: interrupted; run the same command again, it continues from here')
    if changed:
        print('atss_ext: environment ready after {:.0f} s'.format(time.time() - started), flush=True)


def prepare(venv, extras):
    """Makes ``venv`` (or the active environment) ready for ``extras``; returns whether anything was done."""
    if not venv:
        check_version(sys.version_info[:2], sys.executable)
        check_compiler()
        python, state = Path(sys.executable), active_state()
    else:
        folder = ROOT / venv
        python = folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
        state = folder / 'atss_ext-state.json'
    wanted = fingerprint()
    if is_ready(state, extras, wanted) and run_quiet([python, '-c', '']):
        return False
    check_compiler()
    if venv:
        ensure_venv(folder, python)
    install(python, extras)
    problem = check(python)
    if problem and venv and (folder / OWNER_MARK).exists():
        say('the environment does not work ({}); building it anew'.format(problem))
        shutil.rmtree(str(folder))
        ensure_venv(folder, python)
        install(python, extras)
        problem = check(python)
    if problem:
        raise SetupError('the environment {} does not work: {}'.format(venv or python, problem))
    known = sorted(set(extras) | set(read_state(state).get('extras', [])))
    state.write_text(json.dumps({'extras': known, 'fingerprint': wanted}))
    return True


def active_state():
    """The file that remembers what the active environment was prepared for."""
    return Path(sys.prefix) / 'atss_ext-state.json'


def say(message):
    """One line of progress."""
    print('atss_ext: ' + message, flush=True)


def fingerprint():
    """Changes when the build or the requirements change, so that an update of the tree is installed."""
    files = [ROOT / 'pyproject.toml', ROOT / 'setup.py', Path(__file__)]
    files += sorted((ROOT / 'atss_ext/compat').glob('*.py'))
    files += sorted(path for path in (ROOT / 'atss_ext/csrc').rglob('*') if path.is_file())
    digest = hashlib.sha256(str(ROOT).encode())
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def read_state(state):
    """What an earlier run recorded; nothing where it never finished."""
    try:
        return json.loads(state.read_text())
    except (OSError, ValueError):
        return {}


def is_ready(state, extras, wanted):
    """Whether an earlier run finished with these extras and this tree."""
    known = read_state(state)
    if known.get('fingerprint') != wanted or not set(extras) <= set(known.get('extras', [])):
        return False
    return os.environ.get('ATSS_EXT_NO_NATIVE', '0') not in ('', '0') or has_library()


def has_library():
    """Whether the compiled library lies in the tree (an editable install keeps it there)."""
    return any((ROOT / 'atss_ext').glob('_C*'))


def check_version(version, executable):
    """Refuses a Python the stack has no wheels for."""
    if version not in SUPPORTED:
        raise SetupError(
            '{} is Python {}.{}, but mmdet and torch need 3.10, 3.11 or 3.12: install one of them, or name '
            'it, as in `make demo PYTHON=python3.11`'.format(executable, *version)
        )


def check_compiler():
    """Refuses to start an install that would fail minutes later for want of a compiler."""
    if os.environ.get('ATSS_EXT_NO_NATIVE', '0') not in ('', '0'):
        return
    wanted = os.environ.get('CXX', '').split()[:1] or ['c++', 'g++', 'clang++', 'cl']
    if not any(shutil.which(name) for name in wanted):
        raise SetupError(
            'no C++ compiler found (looked for {}): install one (Debian/Ubuntu: apt-get install g++; macOS: '
            'xcode-select --install), or set ATSS_EXT_NO_NATIVE=1 to run without the native library'.format(
                ', '.join(wanted)
            )
        )


def find_python():
    """An interpreter of a supported version: the one that runs this, else one found on PATH."""
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    for major, minor in reversed(SUPPORTED):
        path = shutil.which('python{}.{}'.format(major, minor))
        # Version managers leave shims that exist but do not run.
        if path and run_quiet([path, '-c', '']):
            return path
    check_version(sys.version_info[:2], sys.executable)
    return None


def ensure_venv(folder, python):
    """Creates the environment, or repairs one whose creation was cut short."""
    if python.exists() and run_quiet([python, '-m', 'pip', '--version']):
        return
    if folder.exists() and any(folder.iterdir()):
        if not ((folder / OWNER_MARK).exists() or (folder / 'pyvenv.cfg').exists()):
            raise SetupError(
                '{} exists and is no virtual environment: remove it, or name another folder, as in '
                '`make demo VENV=.venv2`'.format(folder)
            )
        say('{} is half-built; starting it anew'.format(folder.name))
        shutil.rmtree(str(folder))
    base = find_python()
    say('creating {} with {}'.format(folder.name, base))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OWNER_MARK).write_text('Removed and rebuilt when it does not work.\n')
    result = subprocess.run(
        [base, '-m', 'venv', str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if result.returncode:
        raise SetupError(
            'creating {} failed (Debian/Ubuntu: apt-get install python3-venv): {}'.format(
                folder, ' '.join(result.stdout.split())[-300:]
            )
        )


def install(python, extras):
    """torch first, because the build of atss_ext needs it; then the rest."""
    wheels = ['--only-binary=:all:']
    say('installing torch and torchvision from wheels (a minute or more, up to 3 GB)')
    pip(python, [*wheels, 'torch>=2.4', 'torchvision>=0.19', *BUILD_TOOLS])
    say('installing mmdet and the rest, building atss_ext')
    editable = '{}[{}]'.format(ROOT, ','.join(extras))
    sources = ['--no-binary=' + name for extra in extras for name in SOURCE_ONLY.get(extra, [])]
    for extra in extras:
        for name in SOURCE_ONLY.get(extra, []):
            pip(python, ['--only-binary=:all:', '--no-binary=' + name, '--no-deps', name])
    pip(python, [*wheels, *sources, '--no-build-isolation', '-e', editable])
    for extra in extras:
        if extra in WITHOUT_DEPENDENCIES:
            pip(python, [*wheels, '--no-deps', *WITHOUT_DEPENDENCIES[extra]])


def pip(python, arguments):
    """Runs pip; on failure its own last lines are shown before the sentence."""
    command = [str(python), '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *arguments]
    result = subprocess.run(command, cwd=str(ROOT), stderr=subprocess.PIPE, universal_newlines=True)
    if result.returncode:
        sys.stderr.write('\n'.join(result.stderr.splitlines()[-30:]) + '\n')
        raise SetupError(
            'pip could not install {} (its last lines stand above); the next run continues from here'.format(
                arguments[-1]
            )
        )


def check(python):
    """What is wrong with the environment, in a line; None when it works."""
    result = subprocess.run(
        [str(python), '-c', CHECK],
        cwd=str(ROOT / 'tests'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    return None if result.returncode == 0 else (result.stdout.strip().splitlines() or ['no message'])[-1]


def run_quiet(command):
    """Whether a command succeeds; one that cannot even be started (a file cut short) does not."""
    try:
        result = subprocess.run(
            [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:
        return False
    return result.returncode == 0


if __name__ == '__main__':
    main()
