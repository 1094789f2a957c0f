"""A built wheel and an editable install, each in an environment of its own, used through mmdet's commands.

Both are built from a clean copy of this tree: other tests use the library of this one meanwhile.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = ('atss_ext', 'configs', 'tools', 'model-index.yml', 'pyproject.toml', 'setup.py', 'README.md')
WEIGHTS = 'atss_ext/vlsam/world/weights'
SHIPPED = ('README.md', 'vlm/model.safetensors', 'vlm/chat_template.jinja', 'sam/model.safetensors')
SITES = [path for path in sys.path if path.endswith('site-packages')]


def run(command: list, cwd: Path, **environment: str) -> str:
    """Runs a command that must succeed; its output."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': '', 'OMP_NUM_THREADS': '1', **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


def new_environment(folder: Path) -> Path:
    """An environment that sees this one's packages but none of its start-up files; its interpreter."""
    run([sys.executable, '-m', 'venv', folder], folder.parent)
    site = next(folder.glob('lib/python*/site-packages'))
    # Plain paths: their .pth files (our own import finder among them) are not read there.
    (site / 'below.pth').write_text('\n'.join(SITES) + '\n')
    for name in ('setuptools', 'pkg_resources', '_distutils_hack'):
        for stale in site.glob(f'{name}*'):
            shutil.rmtree(stale)
    (site / 'distutils-precedence.pth').unlink(missing_ok=True)
    return folder / 'bin/python'


# The wheel and the editable install hold the same objects: a minute of compiling for the second is saved.
COMPILER = """#!{python}
import hashlib, os, shutil, subprocess, sys

compiler, arguments = {compiler!r}.split(), sys.argv[1:]
if '-c' not in arguments:
    sys.exit(subprocess.call(compiler + arguments))
output = arguments[arguments.index('-o') + 1]
name = hashlib.sha256(repr([part.replace(output, '') for part in arguments]).encode()).hexdigest()
kept = os.path.join(os.path.dirname(__file__), name + '.o')
if not os.path.exists(kept):
    subprocess.run(compiler + arguments, check=True)
    shutil.copy(output, kept)
shutil.copy(kept, output)
"""


@pytest.fixture(scope='module')
def compiler(tmp_path_factory) -> Path:
    """Stands for the C++ compiler: what it compiled before with the same arguments it copies."""
    path = tmp_path_factory.mktemp('compiler') / 'c++'
    path.write_text(COMPILER.format(python=sys.executable, compiler=os.environ.get('CXX', 'c++')))
    path.chmod(0o755)
    return path


@pytest.fixture(scope='module')
def tree(tmp_path_factory) -> Path:
    """A copy of what this tree builds a package from, without anything built."""
    tree = tmp_path_factory.mktemp('tree')
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns('__pycache__', '_C*', '.mim')
            shutil.copytree(ROOT / name, tree / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, tree / name)
    return tree


def remove_built(tree: Path) -> None:
    """What a build of a wheel leaves in the tree."""
    for folder in (tree / 'build', tree / 'atss_ext.egg-info'):
        shutil.rmtree(folder)
    assert sorted(path.name for path in tree.iterdir()) == sorted(PACKAGED)
    assert not list((tree / 'atss_ext').glob('_C*'))


@pytest.fixture(scope='module')
def builder(tmp_path_factory) -> Path:
    """Interpreter of the environment that builds both and takes the editable install."""
    return new_environment(tmp_path_factory.mktemp('environment') / 'editable')


@pytest.fixture(scope='module')
def wheel(builder, tree, compiler, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp('wheel')
    pip = [builder, '-m', 'pip', 'wheel', '-q', '--no-build-isolation', '--no-deps', '-w', target, '.']
    run(pip, tree, CXX=str(compiler))
    remove_built(tree)
    return next(target.glob('*.whl'))


@pytest.fixture(scope='module')
def editable(builder, tree, compiler, wheel) -> Path:
    """The tree after an editable install into the environment of ``builder``; the wheel is built before."""
    pip = [builder, '-m', 'pip', 'install', '-q', '--no-build-isolation', '--no-deps', '-e', tree]
    run(pip, tree.parent, CXX=str(compiler))
    return tree


@pytest.fixture(scope='module', params=['wheel', 'editable'])
def python(request, builder, tmp_path_factory) -> Path:
    """An interpreter whose environment has atss_ext installed in one of the two ways."""
    if request.param == 'editable':
        request.getfixturevalue('editable')
        return builder
    interpreter = new_environment(tmp_path_factory.mktemp('environment') / 'wheel')
    wheel = request.getfixturevalue('wheel')
    run([interpreter, '-m', 'pip', 'install', '-q', '--no-deps', wheel], ROOT.parent)
    return interpreter


def test_wheel_content(wheel):
    assert '-cp310-abi3-' in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        'atss_ext/.mim/configs/atss/atss_r50_fpn_1x_coco.py',
        'atss_ext/.mim/tools/train.py',
        'atss_ext/.mim/model-index.yml',
        'atss_ext/_C.abi3.so',
        'atss_ext/py.typed',
        '_atss_ext_mmcv_finder.py',
        '_atss_ext_config_scope.py',
        'atss_ext_hooks.pth',
    ):
        assert name in names, name
    assert not [name for name in names if name.startswith(('tests/', 'configs/', 'tools/'))]
    assert {name for name in names if name.startswith(WEIGHTS)} == shipped_files()


def shipped_files() -> set[str]:
    """The small models and their card, relative to the tree."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / WEIGHTS).rglob('*') if path.is_file()}
    assert {f'{WEIGHTS}/{name}' for name in SHIPPED} <= files
    return files


def test_a_source_distribution_has_the_small_models(tmp_path):
    command = ['-W', 'ignore', 'setup.py', '-q', 'egg_info', '--egg-base', tmp_path, 'sdist', '-d', tmp_path]
    run([sys.executable, *command], ROOT, ATSS_EXT_NO_NATIVE='1')
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        names = {member.name.partition('/')[2] for member in archive if member.isfile()}
    assert {name for name in names if name.startswith(WEIGHTS)} == shipped_files()


def requirements(wheel: Path, extra: str) -> set[str]:
    """What the wheel requires for an extra alone, extras it refers to left as they stand."""
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
    rows = [
        Requirement(row) for row in Parser().parsestr(archive.read(name).decode()).get_all('Requires-Dist')
    ]
    return {
        row.name + (f'[{",".join(row.extras)}]' if row.extras else '')
        for row in rows
        if row.marker and row.marker.evaluate({'extra': extra})
    }


def test_mmcv_lite_can_be_left_out(wheel):
    """For an environment with a compiled mmcv: the same packages, none of which installs `mmcv`."""
    assert requirements(wheel, 'mmdet') == {'atss_ext[mmdet-core]', 'mmcv-lite'}
    assert requirements(wheel, 'mmdet-core') == {'mmdet', 'mmengine', 'setuptools'}


def closure(names: set[str]) -> set[str]:
    """The distributions that come with these on this machine."""
    found: set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        rows = [Requirement(row) for row in metadata.requires(name) or []]
        needed = {row.name for row in rows if not row.marker or row.marker.evaluate({'extra': ''})}
        names |= {canonicalize_name(name) for name in needed} - found
    return found


def test_the_extra_mim_holds_what_mim_imports(wheel, tmp_path):
    """mim without its own requirements beside the extra's, and nothing else: each of its commands loads."""
    assert 'atss_ext[mim]' in requirements(wheel, 'dev')
    for name in [*closure(requirements(wheel, 'mim')), 'openmim', 'pip']:
        for file in metadata.files(name) or []:
            top = file.parts[0]
            if top != '..' and not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(metadata.distribution(name).locate_file(top))
    code = (
        'import sys; sys.path.insert(0, sys.argv.pop(1)); '
        'import importlib, pkgutil, mim.commands; '
        'names = [module.name for module in pkgutil.iter_modules(mim.commands.__path__)]; '
        '[importlib.import_module("mim.commands." + name) for name in names]; print(names)'
    )
    # Neither the folders of site-packages nor those of the environment variable.
    out = run([sys.executable, '-I', '-S', '-W', 'ignore', '-c', code, tmp_path], tmp_path)
    assert "'train'" in out
    assert "'test'" in out


def test_an_editable_build_has_the_library_and_notes_its_torch(editable):
    assert (editable / 'atss_ext/_C.abi3.so').is_file()
    assert (editable / 'atss_ext/_C.torch').read_text() == metadata.version('torch')


def hooks_loaded(folder: Path) -> list[str]:
    """The modules that the start-up file in ``folder`` adds to a bare interpreter; it must print nothing."""
    code = (
        'import site, sys; before = set(sys.modules); site.addsitedir(sys.argv[1]); '
        'print(*sorted(set(sys.modules) - before))'
    )
    return run([sys.executable, '-I', '-S', '-c', code, folder], folder).split()


def test_the_start_up_file_loads_the_hooks_and_nothing_else(wheel, tmp_path):
    archive = zipfile.ZipFile(wheel)
    hooks = ['_atss_ext_config_scope', '_atss_ext_mmcv_finder']
    for name in ['atss_ext_hooks.pth', *(f'{hook}.py' for hook in hooks)]:
        archive.extract(name, tmp_path)
    assert hooks_loaded(tmp_path) == hooks
    (tmp_path / '_atss_ext_mmcv_finder.py').unlink()  # a removal cut short
    assert hooks_loaded(tmp_path) == hooks[:1]


def test_mmdet_imports_without_naming_us(python, tmp_path):
    code = (
        'import sys, mmdet.models, mmcv.ops, torch; '
        'boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]]); '
        'print(mmcv.ops.nms(boxes, torch.tensor([.5, .9, .1]), 0.5)[1].tolist())'
    )
    assert run([python, '-W', 'ignore', '-c', code], tmp_path).strip().endswith('[1, 2]')


def test_off_switch(python, tmp_path):
    result = subprocess.run(
        [python, '-c', 'import mmcv.ops'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': '', 'ATSS_EXT_NO_MMCV_FINDER': '1'},
        capture_output=True,
        text=True,
    )
    assert "No module named 'mmcv._ext'" in result.stderr


def test_start_up_stays_light(python, tmp_path):
    heavy = ('torch', 'mmcv', 'mmengine', 'atss_ext')
    code = f'import sys; print([m for m in sys.modules if m.split(".")[0] in {heavy}])'
    assert run([python, '-c', code], tmp_path).strip() == '[]'


@pytest.mark.parametrize('switch', ['0', '1'])
def test_configs_resolve_from_another_folder(python, tmp_path, switch):
    """Also with the mmcv part switched off: mmengine must know the scope before anything imports us."""
    (tmp_path / 'mine.py').write_text("_base_ = 'atss_ext::atss/atss_r101_fpn_1x_coco.py'\n")
    code = (
        "from mmengine.config import Config; c = Config.fromfile('mine.py'); "
        'm = c.model; '
        'print(m.bbox_head.type, m.train_cfg.assigner.type, m.backbone.depth, c.train_cfg.max_epochs)'
    )
    out = run([python, '-W', 'ignore', '-c', code], tmp_path, ATSS_EXT_NO_MMCV_FINDER=switch)
    assert out.split() == ['atss_ext.ATSSHead', 'atss_ext.ATSSAssigner', '101', '12']


def test_the_small_models_load_from_another_folder(python, tmp_path):
    code = (
        'from atss_ext.vlsam import load; vlsam = load("atss_ext::vlsam/vlsam_world.py", device="cpu"); '
        'print(type(vlsam.vlm.model).__name__, type(vlsam.segmenter.model).__name__)'
    )
    out = run([python, '-W', 'ignore', '-c', code], tmp_path, HF_HUB_OFFLINE='1')
    assert out.split()[-2:] == ['LlavaForConditionalGeneration', 'SamModel']


def test_config_scope_off_switch(python, tmp_path):
    code = "from mmengine.config.utils import MODULE2PACKAGE as known; print('atss_ext' in known)"
    assert run([python, '-W', 'ignore', '-c', code], tmp_path).strip() == 'True'
    out = run([python, '-W', 'ignore', '-c', code], tmp_path, ATSS_EXT_NO_CONFIG_SCOPE='1')
    assert out.strip() == 'False'


def write_tiny_coco(root: Path) -> None:
    """Four 64x64 images with a bright square each."""
    import cv2

    images, annotations = [], []
    for i in range(4):
        picture = np.full((64, 64, 3), 40, np.uint8)
        picture[10 + i : 40 + i, 8:38] = 220
        cv2.imwrite(str(root / f'{i}.png'), picture)
        images.append({'id': i, 'file_name': f'{i}.png', 'width': 64, 'height': 64})
        box = [8, 10 + i, 30, 30]
        annotations.append(
            {
                'id': i,
                'image_id': i,
                'category_id': 1,
                'bbox': box,
                'area': 900,
                'iscrowd': 0,
                'segmentation': [],
            }
        )
    document = {'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'square'}]}
    (root / 'train.json').write_text(json.dumps(document))


TINY_CONFIG = """
_base_ = 'atss_ext::atss/atss_r50_fpn_1x_coco.py'
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=64),
    bbox_head=dict(num_classes=1, in_channels=64, feat_channels=64, stacked_convs=1),
    test_cfg=dict(score_thr=0.0),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64)),
    dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(
    type='CocoDataset', data_root='.', ann_file='train.json', data_prefix=dict(img=''),
    metainfo=dict(classes=('square',)), pipeline=pipeline, backend_args=None)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(_delete_=True, **dataset))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(_delete_=True, test_mode=True, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='train.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
"""


def test_mmdets_own_commands_train_and_test(python, tmp_path):
    """`mim train` and `mim test` start mmdet's tools/train.py and test.py, which run our configs.

    Without a word about us on the way.
    """
    write_tiny_coco(tmp_path)
    (tmp_path / 'tiny.py').write_text(TINY_CONFIG)
    mim = [python, '-W', 'ignore', '-m', 'mim']
    out = run([*mim, 'train', 'mmdet', 'tiny.py', '--gpus', '0', '--work-dir', 'work'], tmp_path)
    assert 'mmdet/.mim/tools/train.py tiny.py' in out
    assert 'coco/bbox_mAP' in out
    checkpoint = 'work/epoch_1.pth'
    out = run([*mim, 'test', 'mmdet', 'tiny.py', '--checkpoint', checkpoint, '--gpus', '0'], tmp_path)
    assert 'mmdet/.mim/tools/test.py tiny.py' in out
    assert 'coco/bbox_mAP' in out


def test_uninstall_leaves_nothing(wheel, tmp_path):
    interpreter = new_environment(tmp_path / 'environment')
    site = next((tmp_path / 'environment').glob('lib/python*/site-packages'))
    before = {path.name for path in site.iterdir()}
    pip = [interpreter, '-m', 'pip']
    run([*pip, 'install', '-q', '--no-deps', wheel], tmp_path)
    assert 'atss_ext_hooks.pth' in {path.name for path in site.iterdir()}
    run([*pip, 'uninstall', '-q', '-y', 'atss_ext'], tmp_path)
    assert {path.name for path in site.iterdir()} - {'__pycache__'} == before - {'__pycache__'}
