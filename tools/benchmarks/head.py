"""Targets of a batch: our ATSSHead against mmdet's, each built from its own R50 config."""

import copy
import itertools
from pathlib import Path
from typing import Any

import torch
from _pairs import Call, time_against, time_alone
from _report import Report, Row
from _scenes import STRIDES, random_boxes
from _settings import TOPK, Settings, has_mmdet
from torch import Tensor

from atss_ext import ops

BATCH, GTS, AT_LEAST = 8, 50, 30
MMDET = 'mmdet get_targets'
# What configs that inherit from these two hold.
OUR_CONFIG = str(Path(__file__).resolve().parents[2] / 'configs/atss/atss_r50_fpn_1x_coco.py')
THEIR_CONFIG = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
CLASSES = 80
# Height and width of landscape pictures (4:3, 3:2, 16:9 and others) resized to fit 1333 x 800.
SIZES = (
    (800, 1067),
    (800, 1333),
    (800, 1199),
    (750, 1333),
    (800, 1067),
    (800, 1204),
    (800, 1000),
    (667, 1333),
)
# The batch they are padded to, and what mmdet's configs pad each to a multiple of.
FULL, DIVISOR = (800, 1344), 32


def rows(settings: Settings, report: Report) -> None:
    """The one row of the head."""
    batch, gts = settings.count(BATCH), settings.count(GTS)
    work = f'head targets, B = {batch}, {gts} gts an image'
    if not has_mmdet():
        report.leave_out(work, MMDET)
        return
    instances, metas = _batch(settings, batch, gts)
    ours, assign = _our_calls(settings, instances, metas)
    theirs = _their_call(settings, instances, metas)
    _check(ours(), theirs())
    their_time, (our_time,) = time_against(theirs, [ours], settings.device, settings.seconds)
    parts = None
    if not settings.times_only:
        parts = {'atss_assign of the batch': time_alone(assign, settings.device, settings.seconds / 30)}
    at_least = AT_LEAST if settings.on_cpu else None
    report.add(Row.timed(work, MMDET, our_time, their_time, at_least=at_least, parts=parts))


def _batch(settings: Settings, batch: int, gts: int) -> tuple[list[Any], list[dict]]:
    """Instances and metas of B images of different sizes, padded to the size of the batch."""
    from mmengine.structures import InstanceData

    sizes = [_scaled(size, settings.image) for size in itertools.islice(itertools.cycle(SIZES), batch)]
    boxes = [random_boxes(gts, size, seed, settings.device) for seed, size in enumerate(sizes)]
    labels = torch.arange(gts, device=settings.device) % CLASSES
    instances = [InstanceData(bboxes=one, labels=labels) for one in boxes]
    # As mmdet's preprocessor pads each image, before the batch is stacked.
    pads = [tuple(-(-side // DIVISOR) * DIVISOR for side in size) for size in sizes]
    metas = [{'img_shape': size, 'pad_shape': pad} for size, pad in zip(sizes, pads, strict=True)]
    return instances, metas


def _scaled(size: tuple[int, int], image: tuple[int, int]) -> tuple[int, int]:
    """A size of ``SIZES`` for a batch as large as ``image`` instead of ``FULL``."""
    return size[0] * image[0] // FULL[0], size[1] * image[1] // FULL[1]


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


def _our_calls(settings: Settings, instances: list[Any], metas: list[dict]) -> tuple[Call, Call]:
    """Everything our head does between the feature maps and the losses, packing included; the op alone."""
    from atss_ext.assigners.base import PackedGts
    from atss_ext.models.dense_heads.prior_validity import valid_priors

    head, shapes = _build(OUR_CONFIG), _shapes(settings)

    def inputs() -> tuple[Any, Any, Tensor | None]:
        priors = head.pyramid_priors(shapes, torch.device(settings.device))
        gts = PackedGts.from_instances(instances)
        border = head.train_cfg['allowed_border']
        return priors, gts, valid_priors(head.prior_generator, priors.boxes, shapes, metas, border)

    priors, gts, valid = inputs()
    if valid is None or priors.grid is None:
        raise RuntimeError('the images fill the batch, or the priors are no grid: nothing would be masked')

    def assign() -> object:
        return ops.atss_assign(
            priors.boxes, priors.level_sizes, gts.boxes, gts.offsets, TOPK, valid, grid=priors.grid
        )

    return lambda: head.get_targets(*inputs()), assign


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
