"""Configs of the package, inherited from a folder of the user's, are what they are in the tree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope

from atss_ext.registry import DATASETS, METRICS, MODELS, TASK_UTILS, TRANSFORMS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [
    'atss/atss_r50_fpn_1x_coco.py',
    'coda/atss_r50_fpn_1x_soda10m.py',
    'demo/atss_r18_bccd.py',
    'demo/atss_r18_shapes.py',
    'lvis/atss_r50_fpn_sample1e-3_1x_lvis-v1.py',
    'paper/table1/table1_fcos.py',
]


def kinds(registry, settings) -> list[str]:
    """Where the classes of everything below ``settings`` come from, in its order."""
    found = []
    if isinstance(settings, dict):
        settings = {key: value for key, value in settings.items() if key != 'init_cfg'}
        if isinstance(settings.get('type'), str):
            with registry.switch_scope_and_registry(settings.get('_scope_')) as own:
                kind = own.get(settings['type'])
                found.append(f'{kind.__module__}.{kind.__name__}')
                found += [name for value in settings.values() for name in kinds(registry, value)]
        else:
            found += [name for value in settings.values() for name in kinds(registry, value)]
    elif isinstance(settings, list | tuple):
        found += [name for value in settings for name in kinds(registry, value)]
    return found


@pytest.mark.parametrize('name', CONFIGS)
def test_an_heir_is_built_of_the_same_classes(tmp_path, name):
    init_default_scope('mmdet')
    (tmp_path / 'heir.py').write_text(f"_base_ = 'atss_ext::{name}'\n")
    heir, own = Config.fromfile(tmp_path / 'heir.py'), Config.fromfile(ROOT / 'configs' / name)
    for part, registry in (
        (lambda cfg: cfg.train_dataloader.dataset.get('pipeline'), TRANSFORMS),
        (lambda cfg: cfg.val_dataloader.dataset.pipeline, TRANSFORMS),
        (lambda cfg: cfg.model.train_cfg, TASK_UTILS),
        (lambda cfg: [cfg.model[key] for key in ('backbone', 'neck')], MODELS),
        (lambda cfg: {**cfg.model.bbox_head, 'anchor_generator': 0, 'bbox_coder': 0}, MODELS),
        (lambda cfg: {**cfg.val_dataloader.dataset, 'pipeline': 0}, DATASETS),
        (lambda cfg: cfg.val_evaluator, METRICS),
    ):
        expected = kinds(registry, part(own))
        assert kinds(registry, part(heir)) == expected
    assert expected
    assert not [kind for kind in expected if kind.startswith('mmcv.')]


def test_names_without_a_scope_are_ours_then_mmdets_then_mmengines():
    mmdet_transform = TRANSFORMS.get('LoadAnnotations')
    assert mmdet_transform.__module__ == 'mmdet.datasets.transforms.loading'
    assert MODELS.get('ATSSHead').__module__ == 'atss_ext.models.dense_heads.atss_head'
    for other in (MMDET_MODELS, ROOT_MODELS, MODELS):
        assert other.get('atss_ext.ATSSHead').__module__ == 'atss_ext.models.dense_heads.atss_head'
        assert other.get('mmdet.ATSSHead').__module__ == 'mmdet.models.dense_heads.atss_head'
    assert TASK_UTILS.get('TopKAssigner').__module__ == 'atss_ext.assigners.top_k'
    assert DATASETS.get('ConcatDataset').__module__ == 'mmdet.datasets.dataset_wrappers'
    assert TRANSFORMS.get('LoadImageFromFile').__module__ == 'mmcv.transforms.loading'
    assert MODELS.get('NoSuchThing') is None


def test_no_config_names_without_a_scope_what_mmdet_and_we_both_have():
    """It would be mmdet's in the tree, and ours for an heir."""
    both = set()
    for registry in (DATASETS, METRICS, MODELS, TASK_UTILS, TRANSFORMS):
        registry.import_from_location()
        both |= {name for name in registry.module_dict if registry.get(f'mmdet.{name}')}
    page = (ROOT / 'docs/configs.md').read_text()
    told = re.search(r'eight names are in both \(([^)]*)\)', page).group(1)
    assert set(re.findall(r'`(\w+)`', told)) == both
    assert len(both) == 8
    for path in (ROOT / 'configs').rglob('*.py'):
        named = re.findall(r"""type=['"](\w+)['"]""", path.read_text())
        assert not both & set(named), path


def test_an_heir_trains_without_a_warning_of_scopes(tmp_path):
    """Loops, optimizers and hooks of what it inherits are looked for in this scope too."""
    script = """
import sys
from mmengine.config import Config
from mmengine.registry import init_default_scope
init_default_scope('mmdet')
cfg = Config.fromfile('heir.py')
from mmengine.registry import DATA_SAMPLERS, LOOPS, OPTIM_WRAPPERS, PARAM_SCHEDULERS
for registry, settings in (
    (LOOPS, cfg.train_cfg), (LOOPS, cfg.val_cfg), (OPTIM_WRAPPERS, cfg.optim_wrapper),
    (DATA_SAMPLERS, cfg.train_dataloader.sampler), (PARAM_SCHEDULERS, cfg.param_scheduler[1]),
):
    with registry.switch_scope_and_registry(settings.get('_scope_')) as own:
        print(settings.get('_scope_'), own.get(settings['type']).__name__)
"""
    (tmp_path / 'heir.py').write_text("_base_ = 'atss_ext::demo/atss_r18_bccd.py'\n")
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        'atss_ext EpochBasedTrainLoop',
        'atss_ext ValLoop',
        'atss_ext OptimWrapper',
        'atss_ext DefaultSampler',
        'atss_ext CosineAnnealingLR',
    ]
    assert 'Failed to search registry' not in done.stderr + done.stdout
