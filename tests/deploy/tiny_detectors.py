"""Detectors small enough to be exported within seconds, with scores that lie apart like a trained one's."""

import importlib.util
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from atss_ext.datasets.shapes import ShapesSpec, draw_scene
from atss_ext.deploy.detector import build_detector

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/demo/atss_r18_shapes.py'
CLASSES = ShapesSpec().category_names
# As --cfg-options: an eighth of the channels, three levels.
SMALL = {
    'model.backbone.base_channels': 8,
    'model.backbone.stem_channels': 8,
    'model.neck.in_channels': [8, 16, 32, 64],
    'model.neck.out_channels': 16,
    'model.neck.num_outs': 3,
    'model.bbox_head.in_channels': 16,
    'model.bbox_head.feat_channels': 16,
    'model.bbox_head.stacked_convs': 1,
    'model.bbox_head.anchor_generator.strides': [8, 16, 32],
    'model.test_cfg.nms_pre': 200,
    'model.test_cfg.score_thr': 0.05,
}


def tiny_config(**options) -> Config:
    cfg = Config.fromfile(ROOT / CONFIG)
    cfg.merge_from_dict(SMALL)
    cfg.merge_from_dict(options)
    return cfg


def with_head(kind: str) -> Config:
    """The tiny detector with one of mmdet's heads."""
    cfg = tiny_config()
    head = {'type': kind, 'num_classes': 8, 'in_channels': 16, 'feat_channels': 16, 'stacked_convs': 1}
    if kind == 'mmdet.ATSSHead':
        head |= {
            key: cfg.model.bbox_head[key] for key in ('anchor_generator', 'bbox_coder', 'loss_centerness')
        }
    if kind != 'mmdet.RetinaHead':
        head['norm_cfg'] = {'type': 'BN', 'requires_grad': True}
    if kind == 'mmdet.RetinaHead':  # nine anchors a location
        head['anchor_generator'] = {
            'type': 'AnchorGenerator', 'octave_base_scale': 4, 'scales_per_octave': 3,
            'ratios': [0.5, 1.0, 2.0], 'strides': [8, 16, 32],
        }  # fmt: skip
    if kind == 'mmdet.FCOSHead':
        head |= {'strides': [8, 16, 32], 'regress_ranges': ((-1, 64), (64, 128), (128, 1e8))}
    if kind == 'mmdet.GFLHead':
        head |= {'anchor_generator': cfg.model.bbox_head.anchor_generator}
    cfg.model.bbox_head = head
    return cfg


def tiny_model(cfg: Config) -> torch.nn.Module:
    """The model of a config, whose normalisation knows the scenes and whose predictions are spread."""
    generator = torch.Generator().manual_seed(7)
    model = build_detector(cfg)
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() == 4:
                value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        model.train()
        for index in range(4):
            _outputs(model, index)
        outputs = _outputs(model.eval(), 0)
        for name, layer in model.bbox_head.named_children():
            if name.endswith('_cls') and isinstance(layer, torch.nn.Conv2d):
                layer.weight.mul_(1.3 / torch.cat([part.flatten() for part in outputs[0]]).std())
                layer.bias.fill_(-2.5)
            if name.endswith('_reg') and isinstance(layer, torch.nn.Conv2d):
                # RetinaNet's deltas are of whole anchors, the others' of strides or a tenth of anchors.
                layer.weight.mul_(0.03 if name == 'retina_reg' else 0.3)
                layer.bias.fill_(0.0 if name == 'retina_reg' else 0.5)
    return model


def _outputs(model: torch.nn.Module, index: int):
    pixels = torch.from_numpy(scene((96, 128), index)).permute(2, 0, 1)
    return model(model.data_preprocessor({'inputs': [pixels]})['inputs'], mode='tensor')


def scene(size: tuple[int, int], index: int) -> np.ndarray:
    """A picture of the shapes world of (height, width): [H, W, 3] BGR."""
    spec = ShapesSpec(width=size[1], height=size[0], max_size=min(150, *size), empty_fraction=0.0)
    return np.ascontiguousarray(draw_scene(spec, 11, index).image[:, :, ::-1])


def save_checkpoint(path: Path, cfg: Config, model: torch.nn.Module) -> Path:
    """As mmengine's CheckpointHook writes it, with an optimizer's state."""
    moments = {i: {'exp_avg': p.clone(), 'exp_avg_sq': p.clone()} for i, p in enumerate(model.parameters())}
    meta = {
        'cfg': cfg.pretty_text,
        'epoch': 1,
        'iter': 2,
        'dataset_meta': {'classes': CLASSES, 'palette': [(i, 2 * i, 3 * i) for i in range(8)]},
    }
    content = {'meta': meta, 'state_dict': model.state_dict(), 'optimizer': {'state': moments}}
    torch.save({**content, 'message_hub': {}}, path)
    return path


def load_tool(script: str):
    """Import a script of tools/ as a module."""
    name = 'atss_tool_' + Path(script).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / script)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def as_options(options: dict) -> list[str]:
    """Command line words for ``--cfg-options``."""
    return [f'{key}={str(value).replace(" ", "")}' for key, value in options.items()]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """As if no file could grow beyond ``size`` bytes for want of space."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
