"""A tiny detector on disk: its config, its weights, and images of what it looks at."""

import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / 'tools'))

from tiny_coco import CONFIG, write_split

# Another head: its weights fit the rest of the tiny detector.
OTHER = "_base_ = 'tiny.py'\nmodel = dict(bbox_head=dict(num_classes=3))\n"
IOU = """
_base_ = 'tiny.py'
model = dict(train_cfg=dict(assigner=dict(
    _delete_=True, type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, match_low_quality=False)))
"""


class Shelf(NamedTuple):
    """Files of a tiny detector."""

    root: Path
    config: Path
    weights: Path
    other_weights: Path
    iou_config: Path

    def image(self, name: str = 'val_0.png') -> str:
        return str(self.root / 'images' / name)


@pytest.fixture(scope='session')
def shelf(tmp_path_factory) -> Shelf:
    root = tmp_path_factory.mktemp('shelf')
    (root / 'images').mkdir()
    write_split(root, 'val')
    # Ids that are not 1, 2: those of the annotation file have to be used.
    ann_file = root / 'val.json'
    text = ann_file.read_text().replace('"id": 1, "name": "box"', '"id": 17, "name": "box"')
    text = text.replace('"id": 2, "name": "disc"', '"id": 4, "name": "disc"')
    ann_file.write_text(
        text.replace('"category_id": 1', '"category_id": 17').replace('"category_id": 2', '"category_id": 4')
    )
    files = {'tiny.py': CONFIG.replace('{root}', root.as_posix()), 'other.py': OTHER, 'iou.py': IOU}
    for name, content in files.items():
        (root / name).write_text(content)
    weights = [_save(root / f'{name}.py', root / f'{name}.pth') for name in ('tiny', 'other')]
    return Shelf(root, root / 'tiny.py', *weights, root / 'iou.py')


def _save(config: Path, target: Path) -> Path:
    """Weights of a model as a training keeps them, with enough spread that boxes differ."""
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    with torch.random.fork_rng():
        torch.manual_seed(5)
        init_default_scope('mmdet')
        model = MODELS.build(Config.fromfile(config).model)
        model.init_weights()
        for parameter in model.bbox_head.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    meta = {'dataset_meta': {'classes': ('box', 'disc')}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, target)
    return target
