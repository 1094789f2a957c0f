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
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 10), (3, 11), (3, 12))
# Written into environments made here; only such a one is ever removed.
OWNER_MARK = 'made-by-atss_ext'
# Lies in every environment prepared here and says for what.
STATE = 'atss_ext-state.json'
BUILD_TOOLS = ['setuptools>=70.1,<81', 'ninja']
# Its requirements pin a setuptools that cannot build wheels; the extra `mim` holds those it needs.
WITHOUT_DEPENDENCIES = {'dev': ['openmim>=0.3.9'], 'mim': ['openmim>=0.3.9']}
# What the extra `dev` of pyproject.toml holds: nothing is installed anew for them.
HELD_BY_DEV = ('docs', 'evaluation', 'export', 'mim', 'vlsam', 'webui')
# Published as source only. onedl-mmcv compiles nothing without torch in its build, and comes without ops.
SOURCE_ONLY = {'onedl': ['onedl-mmcv', 'onedl-mmdetection']}
# Distributions that install the same import names, by the extra that brings them.
FAMILIES = {
    'mmdet': ('mmdet', 'mmengine', 'mmcv', 'mmcv-lite'),
    'onedl': ('onedl-mmdetection', 'onedl-mmengine', 'onedl-mmcv'),
}
# Prints the installed distributions; the folders of sys.path come in order, so the first of a name counts.
INSTALLED = (
    'import importlib.metadata as m, json; '
    'print(json.dumps([[d.metadata["Name"] or "", d.version] for d in m.distributions()][::-1]))'
)
# What a working environment can do: mmdet's models import (mmcv._ext is served), our registry answers.
CHECK = (
    'import cv2, torch, torchvision, pycocotools.mask, mmengine, mmcv, mmdet.models, atss_ext.ops as ops; '
    'from atss_ext.registry import MODELS; '
    'MODELS.get("ATSSHead") or exit("atss_ext.ATSSHead is not registered")'
)
CHECK_NATIVE = '; ops.available() or exit("atss_ext: the native library does not load")'


class SetupError(Exception):
    """Something the user can mend; the message is one sentence."""


class BrokenPackages(SetupError):
    """Installed packages do not work; installing them anew can help."""


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
    if venv:
        folder = ROOT / venv
        python = folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
        state = folder / STATE
    else:
        check_version(sys.version_info[:2], sys.executable)
        folder, python, state = None, Path(sys.executable), Path(sys.prefix) / STATE
    wanted, packages = {'fingerprint': fingerprint(), 'native': wants_native()}, installed(python)
    if is_ready(state, extras, wanted, packages):
        return False
    known = read_state(state).get('extras', [])
    only_more = bool(known) and is_ready(state, known, wanted, packages)
    check_compiler()
    if folder:
        ensure_venv(folder, python)
    # What was there stays there: its requirements may be what changed in the tree.
    extras = sorted(set(extras) | set(known))
    refuse_mixture(python, extras)
    # From here to the last line nothing vouches for the environment: a run cut short is taken up again.
    forget(state)
    # The library is not built again for what one more extra needs.
    begin = add if only_more and not set(extras) & set(SOURCE_ONLY) else install
    install_and_check(folder, python, extras, begin)
    remember(state, dict(wanted, extras=extras))
    return True


def install_and_check(folder, python, extras, begin):
    """Begins as told; where packages turn out broken in an environment made here, once more from nothing."""
    try:
        begin(python, extras)
        check(python)
    except BrokenPackages as problem:
        if not folder or not (folder / OWNER_MARK).exists():
            raise
        say('{}; building it anew'.format(problem))
        shutil.rmtree(str(folder))
        ensure_venv(folder, python)
        install(python, extras)
        check(python)


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


def forget(state):
    """Removes what an earlier run recorded."""
    if state.exists():
        state.unlink()


def remember(state, content):
    """Records a finished run; a kill leaves the whole record or none."""
    unfinished = state.with_suffix('.tmp')
    unfinished.write_text(json.dumps(content))
    os.replace(str(unfinished), str(state))


def is_ready(state, extras, wanted, packages):
    """Whether an earlier run finished with these extras, this tree and the torch that is there now."""
    known = read_state(state)
    there = set(known.get('extras', []))
    if 'dev' in there:
        there.update(HELD_BY_DEV)
    if known.get('fingerprint') != wanted['fingerprint'] or not set(extras) <= there:
        return False
    if 'torch' not in packages:
        return False
    return not wanted['native'] or (known.get('native', False) and library_torch() == packages['torch'])


def wants_native():
    """Whether the native library is to be built."""
    return os.environ.get('ATSS_EXT_NO_NATIVE', '0') in ('', '0')


def library_torch():
    """The torch for which the library in the tree was built; None where there is none or nobody knows.

    The tree holds one library, which every environment with an editable install of the tree shares.
    """
    stamp = ROOT / 'atss_ext/_C.torch'
    if not stamp.exists() or not any((ROOT / 'atss_ext').glob('_C*.' + ('pyd' if os.name == 'nt' else 'so'))):
        return None
    return stamp.read_text()


def installed(python):
    """Versions by normalised name in the environment of ``python``; empty where that does not run."""
    try:
        output = subprocess.check_output([str(python), '-c', INSTALLED], stderr=subprocess.DEVNULL)
        rows = json.loads(output.decode())
    except (OSError, ValueError, subprocess.CalledProcessError):
        return {}
    return {re.sub('[-_.]+', '-', name).lower(): version for name, version in rows}


def refuse_mixture(python, extras):
    """Refuses to put one family of packages over the files of another."""
    packages = installed(python)
    for extra, other in (('mmdet', 'onedl'), ('onedl', 'mmdet')):
        there = [name for name in FAMILIES[other] if name in packages]
        if extra in extras and (there or other in extras):
            raise SetupError(
                'the extra {} would overwrite files of {} in {}: name another environment, as in '
                '`make demo VENV=.venv-{}`{}'.format(
                    extra,
                    ', '.join('{} {}'.format(name, packages[name]) for name in there) or 'the extra ' + other,
                    python,
                    extra,
                    ', or first `{} -m pip uninstall {}`'.format(python, ' '.join(there)) if there else '',
                )
            )


def check_version(version, executable):
    """Refuses a Python the stack has no wheels for."""
    if version not in SUPPORTED:
        raise SetupError(
            '{} is Python {}.{}, but mmdet and torch need 3.10, 3.11 or 3.12: install one of them, or name '
            'it, as in `make demo PYTHON=python3.11`'.format(executable, *version)
        )


def check_compiler():
    """Refuses to start an install that would fail minutes later for want of a compiler."""
    if not wants_native():
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
        if not (folder / OWNER_MARK).exists():
            raise SetupError(
                '{} exists and is no virtual environment with a working pip: remove it, or name another '
                'folder, as in `make demo VENV=.venv2`'.format(folder)
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
    editable = '{}[{}]'.format(ROOT, ','.join(without_own_mmcv(extras, installed(python))))
    sources = ['--no-binary=' + name for extra in extras for name in SOURCE_ONLY.get(extra, [])]
    for extra in extras:
        for name in SOURCE_ONLY.get(extra, []):
            pip(python, ['--only-binary=:all:', '--no-binary=' + name, '--no-deps', name])
    pip(python, [*wheels, *sources, '--no-build-isolation', '-e', editable])
    install_without_dependencies(python, extras)


def add(python, extras):
    """What extras need, beside an atss_ext that is installed and stays as it is."""
    say('installing what {} ask for'.format(', '.join(extras)))
    names = ','.join(without_own_mmcv(extras, installed(python)))
    pip(python, ['--only-binary=:all:', 'atss_ext[{}]'.format(names)])
    install_without_dependencies(python, extras)


def install_without_dependencies(python, extras):
    """What comes without what it requires."""
    for extra in extras:
        if extra in WITHOUT_DEPENDENCIES:
            pip(python, ['--only-binary=:all:', '--no-deps', *WITHOUT_DEPENDENCIES[extra]])


def without_own_mmcv(extras, packages):
    """The extras, without mmcv-lite where it would overwrite the files of an mmcv that is there."""
    return ['mmdet-core' if extra == 'mmdet' and 'mmcv' in packages else extra for extra in extras]


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
    """Raises BrokenPackages where installing anew can help, SetupError where only the user can."""
    result = subprocess.run(
        [str(python), '-c', CHECK + (CHECK_NATIVE if wants_native() else '')],
        cwd=str(python.parent.parent),  # not the tree: what is installed counts
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if result.returncode == 0:
        return
    output = result.stdout.strip()
    last = (output.splitlines() or ['exit status {}, no message'.format(result.returncode)])[-1]
    library = re.search('ImportError: (.+): cannot open shared object file', last)
    if library and re.search(r'[/\\\\]cv2[/\\\\]', output):
        raise SetupError(
            'OpenCV needs the system library {}, which is missing: install it (Debian/Ubuntu: apt-get '
            'install libgl1 libglib2.0-0) and run the same command again'.format(library.group(1))
        )
    if is_ours(output, last):
        sys.stderr.write(output + '\n')
        raise SetupError(
            'the packages are installed, but atss_ext itself fails (its own message stands above): mend it '
            'and run the same command again'
        )
    raise BrokenPackages('the environment of {} does not work ({})'.format(python, last))


def is_ours(output, last):
    """Whether a failed check ends in atss_ext: in the tree, in a sentence of it, or for want of its hook."""
    return str(ROOT / 'atss_ext') + os.sep in output or last.startswith('atss_ext') or 'mmcv._ext' in last


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
