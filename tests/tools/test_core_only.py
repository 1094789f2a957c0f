"""Training, testing and looking at configs with what the extra ``mmdet`` brings, and nothing of others."""

import os
import pkgutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_coco import REPO, environment

import atss_ext

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Those that are for extras alone: their modules may import what these bring.
OF_EXTRAS = ('webui',)
OTHERS = ('vlsam', 'evaluation', 'export', 'webui', 'docs', 'mim')
# The same as not being installed, also to whoever asks first.
HIDER = """
from importlib.machinery import PathFinder

HIDDEN = {names!r}
find_spec = PathFinder.find_spec


def find_others(name, path=None, target=None):
    return None if name.partition('.')[0] in HIDDEN else find_spec(name, path, target)


PathFinder.find_spec = staticmethod(find_others)
"""


def brought_by(name: str, extras: tuple[str, ...] = (), seen: set | None = None) -> set[str]:
    """The distributions that come with an installed one and some of its extras."""
    seen = set() if seen is None else seen
    for extra in ('', *extras):
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            wanted = requires(name) or ()
        except PackageNotFoundError:
            continue
        for one in map(Requirement, wanted):
            if one.marker is None or one.marker.evaluate({'extra': extra}):
                brought_by(canonicalize_name(one.name), tuple(one.extras), seen)
    return {name for name, _ in seen}


@pytest.fixture(scope='module')
def hidden() -> set[str]:
    """Import names that only other extras bring; what libraries look for among themselves stays."""
    core = brought_by('atss-ext', ('mmdet',))
    others = {
        canonicalize_name(Requirement(line).name)
        for extra in OTHERS
        for line in tomllib.loads((REPO / 'pyproject.toml').read_text())['project']['optional-dependencies'][
            extra
        ]
    }
    others |= {'huggingface-hub', 'starlette', 'anyio', 'tokenizers'}  # which those bring
    names = {
        name
        for name, distributions in packages_distributions().items()
        if {canonicalize_name(one) for one in distributions} & (others - core)
    }
    assert {'safetensors', 'transformers', 'gradio', 'onnx', 'hotcoco', 'sphinx'} <= names
    assert not {'torch', 'mmdet', 'mmengine', 'mmcv', 'cv2', 'numpy', 'pycocotools', 'yaml', 'PIL'} & names
    return names


@pytest.fixture
def run(hidden, tmp_path):
    """Start Python where those names cannot be imported."""
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site/sitecustomize.py').write_text(HIDER.format(names=hidden))

    def start(*words: object) -> str:
        env = environment()
        env['PYTHONPATH'] = f'{tmp_path / "site"}{os.pathsep}{env["PYTHONPATH"]}'
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, f'{words}\n{done.stdout[-2000:]}{done.stderr[-3000:]}'
        return done.stdout

    return start


def test_every_module_is_imported(run):
    names = [
        name
        for _, name, _ in pkgutil.walk_packages(atss_ext.__path__, 'atss_ext.')
        if name.split('.')[1] not in OF_EXTRAS and not name.endswith('._C')
    ]
    assert len(names) > 150
    out = run('-c', f'import atss_ext.cli\nfor name in {names!r}:\n    __import__(name)\nprint("all")')
    assert out.splitlines()[-1] == 'all'


def test_training_testing_and_looking(run, tiny):
    run(REPO / 'tools/train.py', tiny.config, '--work-dir', tiny.root / 'work')
    run(
        REPO / 'tools/test.py', tiny.config, tiny.root / 'work/epoch_1.pth', '--out', tiny.root / 'found.json'
    )
    assert 'ATSSHead' in run(REPO / 'tools/analysis/check_config.py', tiny.config)
    out = run(REPO / 'tools/evaluate.py', tiny.root / 'found.json', '--ann', tiny.root / 'val.json')
    assert 'bbox_AP50' in out
