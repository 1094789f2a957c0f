"""Targets of a batch: our ATSSHead against mmdet's, each built from its own R50 config."""

import copy
from pathlib import Path
from typing import Any

import torch
from _pairs import Call, time_pair
from _report import Report, Row
from _scenes import STRIDES, random_boxes
from _settings import Settings, has_mmdet

BATCH, GTS, AT_LEAST = 8, 50, 30
MMDET = 'mmdet get_targets'
# What configs that inherit from these two hold.
OUR_CONFIG = str(Path(__file__).resolve().parents[2] / 'configs/atss/atss_r50_fpn_1x_coco.py')
THEIR_CONFIG = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
CLASSES = 80


def rows(settings: Settings, report: Report) -> None:
    """The one row of the head."""
    batch, gts = settings.count(BATCH), settings.count(GTS)
    work = f'head targets, B = {batch}, {gts} gts an image'
    if not has_mmdet():
        report.leave_out(work, MMDET)
        return
    instances, metas = _batch(settings, batch, gts)
    ours = _our_call(settings, instances, metas)
    theirs = _their_call(settings, instances, metas)
    _check(ours(), theirs())
    ours_ms, theirs_ms = time_pair(ours, theirs, settings.device, settings.seconds)
    report.add(Row(work, MMDET, ours_ms, theirs_ms, at_least=AT_LEAST if settings.on_cpu else None))


def _batch(settings: Settings, batch: int, gts: int) -> tuple[list[Any], list[dict]]:
    """Instances and metas of B images."""
    from mmengine.structures import InstanceData

    boxes = [random_boxes(gts, settings.image, seed, settings.device) for seed in range(batch)]
    labels = torch.arange(gts, device=settings.device) % CLASSES
    height, width = settings.image
    meta = {'img_shape': (height, width - 11), 'pad_shape': settings.image}
    return [InstanceData(bboxes=one, labels=labels) for one in boxes], [dict(meta) for _ in boxes]


def _shapes(settings: Settings) -> tuple[tuple[int, int], ...]:
    height, width = settings.image
    return tuple((-(-height // stride), -(-width // stride)) for stride in STRIDES)


def _build(base: str) -> Any:
    """The head of a detector's config, without the detector."""
    import atss_ext  # noqa: F401 - lets mmdet run without a compiled mmcv

    # isort: split
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    from atss_ext.registry import MODELS

    register_all_modules(init_default_scope=True)
    model = copy.deepcopy(Config.fromstring(f'_base_ = {base!r}', '.py').model)
    return MODELS.build({**model.bbox_head, 'train_cfg': model.train_cfg, 'test_cfg': model.test_cfg})


def _our_call(settings: Settings, instances: list[Any], metas: list[dict]) -> Call:
    """Everything our head does between the feature maps and the losses, packing included."""
    from atss_ext.assigners.base import PackedGts
    from atss_ext.models.dense_heads.prior_validity import valid_priors

    head, shapes = _build(OUR_CONFIG), _shapes(settings)

    def call() -> object:
        priors = head.pyramid_priors(shapes, torch.device(settings.device))
        gts = PackedGts.from_instances(instances)
        border = head.train_cfg['allowed_border']
        valid = valid_priors(head.prior_generator, priors.boxes, shapes, metas, border)
        return head.get_targets(priors, gts, valid)

    return call


def _their_call(settings: Settings, instances: list[Any], metas: list[dict]) -> Call:
    """mmdet's ``get_targets`` alone: its anchors and their validity are made beforehand."""
    head = _build(THEIR_CONFIG)
    anchors, valid = head.get_anchors(list(_shapes(settings)), metas, device=settings.device)
    # It replaces the levels inside the lists it is given by one tensor an image.
    return lambda: head.get_targets(list(anchors), list(valid), instances, metas)


def _check(ours: Any, theirs: Any) -> None:
    """Refuses to time two calls that do different work."""
    labels = torch.cat([level.flatten(1) for level in theirs[1]], 1)
    different = float((ours.labels != labels).double().mean())
    if different > 1e-3:
        raise RuntimeError(f'{different:.2%} of the target labels differ from mmdet')
