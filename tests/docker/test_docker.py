"""docker/: what the jobs start, told by literal lists, and by a `docker` that writes down its arguments."""

import os
import re
import shutil
import subprocess
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

REPO = Path(__file__).resolve().parents[2]
RECORDER = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" >"$RECORD"\n'


@pytest.fixture
def recorded(tmp_path):
    """Run a script with a `docker` that records; returns its arguments."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    (folder / 'docker').write_text(RECORDER)
    (folder / 'docker').chmod(0o755)

    def run(*words: str, **extra: str) -> list[str]:
        record = tmp_path / 'record'
        env = {**os.environ, 'PATH': f'{folder}:{os.environ["PATH"]}', 'RECORD': str(record), **extra}
        done = subprocess.run(
            ['bash', str(REPO / 'docker/run.sh'), *words], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return record.read_text().splitlines()

    return run


def common(folder: Path) -> list[str]:
    user = f'{os.getuid()}:{os.getgid()}'
    return [
        'run', '--rm', '--shm-size', '16gb', '--user', user, '--volume', f'{folder}/data:/workspace/data',
        '--volume', f'{folder}/work_dirs:/workspace/work_dirs', '--env',
        'HF_HOME=/workspace/data/huggingface', '--env', 'TORCH_HOME=/workspace/data/torch',
    ]  # fmt: skip


def test_run_starts_the_jobs(recorded, tmp_path):
    image = ['--gpus', 'all', 'atss_ext']
    restarts = ['--env', 'MAX_RESTARTS=3']
    assert recorded('train', 'c d.py', '8', '--amp') == [
        *common(tmp_path), *restarts, *image, 'tools/dist_train.sh', 'c d.py', '8', '--amp', '--resume',
    ]  # fmt: skip
    assert (tmp_path / 'work_dirs').is_dir()  # not by docker, as root
    assert recorded('test', 'c.py', 'x.pth', '2') == [
        *common(tmp_path), *image, 'tools/dist_test.sh', 'c.py', 'x.pth', '2',
    ]  # fmt: skip
    assert recorded('vlsam', 'photos', '8', '--quick', ATSS_GPUS='none', ATSS_IMAGE='mine') == [
        *common(tmp_path), *restarts, 'mine', 'tools/dist_vlsam.sh', 'photos', '8', '--quick',
    ]  # fmt: skip
    assert recorded('shell', ATSS_GPUS='device=1')[-4:] == ['--gpus', 'device=1', 'atss_ext', 'bash']
    assert recorded('shell', ATSS_GPUS='device=0,1')[-4:] == ['--gpus', '"device=0,1"', 'atss_ext', 'bash']
    assert recorded('shell', 'nvidia-smi', '-L')[-3:] == ['atss_ext', 'nvidia-smi', '-L']


@pytest.mark.parametrize('words', [[], ['train', 'c.py'], ['test', 'c.py', 'x.pth'], ['fly']])
def test_run_says_how_it_is_used(words, tmp_path):
    done = subprocess.run(
        ['bash', str(REPO / 'docker/run.sh'), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith('usage: docker/run.sh train CONFIG GPUS')
    assert not (tmp_path / 'data').exists()


def interpolated(value, environment: dict[str, str]):
    """Compose's ``${NAME:-default}``, which it reads after the YAML."""
    if isinstance(value, dict):
        return {key: interpolated(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, environment) for item in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r'\$\{(\w+):-([^}]*)\}', lambda m: environment.get(m[1]) or m[2], value)
    assert '$' not in value, value
    return value


def services(**environment: str) -> dict:
    return interpolated(yaml.safe_load((REPO / 'docker/compose.yaml').read_text()), environment)['services']


def test_compose_starts_the_jobs():
    jobs = services(CONFIG='c.py', GPUS='8', CHECKPOINT='x.pth', INPUT='photos', OUT='work_dirs/o')
    assert {name: job['command'] for name, job in jobs.items()} == {
        'train': ['tools/dist_train.sh', 'c.py', '8', '--resume'],
        'test': ['tools/dist_test.sh', 'c.py', 'x.pth', '8', '--out', 'work_dirs/o'],
        'vlsam': ['tools/dist_vlsam.sh', 'photos', '8', '--config', 'c.py', '--out', 'work_dirs/o'],
        'shell': ['bash'],
    }
    for job in jobs.values():
        (gpus,) = job['deploy']['resources']['reservations']['devices']
        assert gpus == {'driver': 'nvidia', 'count': '8', 'capabilities': ['gpu']}
        assert (job['user'], job['shm_size']) == ('1000:1000', '16gb')
        assert [(one['source'], one['target']) for one in job['volumes']] == [
            ('../data', '/workspace/data'), ('../work_dirs', '/workspace/work_dirs'),
        ]  # fmt: skip
        assert (REPO / 'docker' / job['build']['context'] / job['build']['dockerfile']).is_file()
    # Docker would start a misspelt config again, and multiply the restarts of processes.
    assert not any('restart' in job for job in jobs.values())
    for name in ('train', 'vlsam'):
        assert jobs[name]['environment']['MAX_RESTARTS'] == '3'


def test_what_compose_starts_by_itself_is_there():
    for job in services().values():
        for word in job['command']:
            if word.startswith(('tools/', 'configs/')):
                assert (REPO / word).is_file(), word


def context() -> set[str]:
    """What of the tree a build sees, read as docker reads .dockerignore: the last line that fits decides."""
    lines = (REPO / '.dockerignore').read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith('#')]
    tracked = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard'], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    kept = set()
    for path in tracked:
        keep = True
        for rule in rules:
            pattern = rule.lstrip('!')
            if pattern == '*' or path == pattern or path.startswith(f'{pattern}/'):
                keep = rule.startswith('!')
        if keep:
            kept.add(path)
    return kept


def test_the_build_sees_what_it_copies_and_nothing_else():
    seen = context()
    dockerfile = (REPO / 'docker/Dockerfile').read_text()
    copied = re.findall(r'^COPY (?!--from)(.+) \S+$', dockerfile, flags=re.MULTILINE)
    for source in ' '.join(copied).split():
        assert source == '.' or any(path == source or path.startswith(f'{source}/') for path in seen), source
    assert {'setup.py', 'pyproject.toml', 'model-index.yml', 'README.md'} <= seen
    assert {'docker/constraints.txt', 'docker/requirements.txt'} <= seen
    assert 'atss_ext/csrc/ops.cpp' in seen
    assert {path.split('/')[0] for path in seen} == {
        'LICENSE', 'MANIFEST.in', 'README.md', 'atss_ext', 'configs', 'docker', 'model-index.yml',
        'pyproject.toml', 'setup.py', 'tools',
    }  # fmt: skip


def pins(*names: str) -> dict[str, str]:
    """Name -> release of files of docker/, each on a line of its own."""
    lines = [line for name in names or ['requirements.txt'] for line in (REPO / 'docker' / name).open()]
    lines = [line.strip() for line in lines if not line.startswith('#')]
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+', line) for line in lines)
    found = {}
    for line in map(Requirement, lines):
        (found[canonicalize_name(line.name)],) = [one.version for one in line.specifier]
    assert len(found) == len(lines)
    return found


def test_requirements_pin_what_the_package_asks_for():
    assert pins().keys() >= {
        'torch',
        'torchvision',
        'mmdet',
        'mmengine',
        'mmcv-lite',
        'transformers',
        'hotcoco',
        'ninja',
    }


def test_requirements_satisfy_the_package():
    """Every pin lies in the range that pyproject.toml gives, extras of the image included."""
    project = tomllib.loads((REPO / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    wanted = [*project['dependencies'], *extras['mmdet-core'], *extras['mmdet'], *extras['vlsam']]
    wanted += extras['evaluation']
    pinned = pins()
    for requirement in map(Requirement, wanted):
        if requirement.name != 'atss_ext':
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def asked_for(name: str, extras: tuple[str, ...] = ()) -> list[Requirement]:
    """What an installed package asks for here, and what that asks for."""
    found = []
    for one in map(Requirement, requires(name) or ()):
        if one.marker is None or any(one.marker.evaluate({'extra': extra}) for extra in ('', *extras)):
            found += [one, *asked_for(one.name, tuple(one.extras))]
    return found


def test_requirements_pin_what_torch_leaves_open():
    """By the metadata of the torch that is installed: what names no single release, pip would choose anew."""
    pinned, wanted = pins('requirements.txt', 'constraints.txt'), asked_for('torch')
    exact = {
        canonicalize_name(one.name)
        for one in wanted
        if re.fullmatch(r'==[\d.]+(\.\*)?', str(one.specifier)) and str(one.specifier).count('.') > 1
    }
    assert {canonicalize_name(one.name) for one in wanted} - exact - pinned.keys() == set()
    if version('torch').split('+')[0] == pinned['torch']:
        assert [str(one) for one in wanted if not fits(one, pinned)] == []


def fits(requirement: Requirement, pinned: dict[str, str]) -> bool:
    release = pinned.get(canonicalize_name(requirement.name))
    return release is None or release in requirement.specifier


SCRIPTS = [
    *(REPO / 'docker').glob('*.sh'),
    *(REPO / 'tools').glob('dist_*.sh'),
    *(REPO / 'tools').glob('slurm_*.sh'),
]


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_read_by_bash(script):
    done = subprocess.run(['bash', '-n', str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')
    assert os.access(script, os.X_OK)


def test_check_says_how_it_is_used():
    done = subprocess.run(
        ['bash', str(REPO / 'docker/check.sh'), '--help'], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'docker/check.sh [--base IMAGE] [--certificates FILE] [--keep]' in done.stderr


# Stands for buildah: a container is a folder, and a training ends as the variables say.
BUILDAH = r"""#!/usr/bin/env bash
case " $* " in
*' from '*) echo container ;;
*' run '*)
    work_dirs=$(grep -o '[^ ]*:/workspace/work_dirs' <<<"$*" | cut -d : -f 1)
    mkdir -p "$work_dirs/two"
    case "$*" in
    *command\ -v*) exit 0 ;;
    *tools/test.py*) echo 'coco/bbox_mAP: 0.1' | tee "$work_dirs/detections.json" ;;
    *--resume*) echo 'resumed epoch: 1, iter: 12' && echo x >"$work_dirs/two/epoch_3.pth" ;;
    *tini*)
        trap 'echo "$SAID"; exit "$CODE"' TERM
        echo $$ >"$work_dirs/pid"
        echo epoch_1.pth >"$work_dirs/two/last_checkpoint"
        while :; do sleep 0.05; done ;;
    esac ;;
esac
"""
STOPPED = 'stopped by SIGTERM; training goes on with --resume, VL-SAM with the same command'


@pytest.mark.parametrize(
    ('code', 'said', 'well'),
    [('143', STOPPED, True), ('1', STOPPED, False), ('143', 'Terminated', False), ('0', STOPPED, False)],
)
def test_check_wants_a_stop_by_sigterm_and_no_crash(tmp_path, code, said, well):
    programs = {'buildah': BUILDAH, 'id': '#!/bin/sh\necho 0\n', 'chown': '#!/bin/sh\n'}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / 'tmp').mkdir()
    env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'TMPDIR': str(tmp_path / 'tmp')}
    done = subprocess.run(
        ['bash', str(REPO / 'docker/check.sh'), '--base', 'any'], env={**env, 'CODE': code, 'SAID': said},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode == 0, 'all is well' in done.stdout) == (well, well), done.stdout + done.stderr
    if not well:
        assert f'SIGTERM did not stop the training (exit code {code} instead of 143' in done.stderr
        assert said in done.stderr


@pytest.mark.slow
def test_the_image_builds_and_its_jobs_run():
    """About ten minutes; DOCKER_CHECK_OPTIONS are further options of the script, separated by blanks."""
    assert shutil.which('buildah'), 'apt-get install buildah debootstrap'
    options = os.environ.get('DOCKER_CHECK_OPTIONS', '').split()
    done = subprocess.run(
        ['bash', str(REPO / 'docker/check.sh'), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert 'resumed epoch: ' in done.stdout
    assert 'all is well' in done.stdout
