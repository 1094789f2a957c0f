"""`atss_assign`, grid and any-priors route, against mmdet's ATSSAssigner: time and memory."""

import torch
from _memory import peak_mb
from _pairs import Call, time_alone, time_pair
from _report import Report, Row
from _scenes import Priors, pack, pyramid_priors, random_boxes
from _settings import TOPK, Settings, has_mmdet
from torch import Tensor

from atss_ext import ops

MMDET = 'mmdet ATSSAssigner'
ROUTES = ('grid', 'any priors')
# Ratios to reach on the CPU, by number of gts.
AT_LEAST = {'grid': {20: 200, 100: 500, 300: 1000}, 'any priors': {20: 80, 100: 100, 300: 150}}
MEMORY_AT_LEAST = 50
# On the GPU: images of a batch, gts an image, ratio.
CUDA_BATCH = (16, 100, 50)
MANY_GTS = 5000
# Priors that may differ: rounding decides where an IoU equals the threshold but for it.
MAX_DIFFERENT = 1e-3


def our_call(priors: Priors, images: list[Tensor], route: str) -> Call:
    """Our assignment of a batch; gts packed beforehand, as the head holds them."""
    boxes, offsets = pack(images)
    grid = priors.grid if route == 'grid' else None
    return lambda: ops.atss_assign(priors.boxes, priors.sizes, boxes, offsets, TOPK, grid=grid)


def their_call(priors: Priors, images: list[Tensor]) -> Call:
    """mmdet's assignment of a batch: image by image; instances made beforehand."""
    from mmdet.models.task_modules import ATSSAssigner
    from mmengine.structures import InstanceData

    assigner = ATSSAssigner(topk=TOPK)
    predictions = InstanceData(priors=priors.boxes)
    instances = [InstanceData(bboxes=boxes, labels=boxes.new_zeros(len(boxes)).long()) for boxes in images]
    return lambda: [assigner.assign(predictions, priors.sizes, one) for one in instances]


def rows(settings: Settings, report: Report) -> None:
    """All rows of the assignment."""
    priors = pyramid_priors(settings.image, settings.device)
    for route in ROUTES:
        for gts, at_least in AT_LEAST[route].items():
            _pair(
                settings, report, priors, route, 1, settings.count(gts), at_least if settings.on_cpu else None
            )
    if not settings.on_cpu:
        images, gts, at_least = CUDA_BATCH
        _pair(settings, report, priors, 'grid', images, settings.count(gts), at_least)
    for route in ROUTES:
        _memory(settings, report, priors, route, settings.count(300))
    _many(settings, report, priors, settings.count(MANY_GTS))


def _work(priors: Priors, route: str, images: int, gts: int) -> str:
    batch = f'B = {images}, ' if images > 1 else ''
    return f'atss_assign, {route}, {batch}N = {len(priors.boxes):,}, M = {gts:,}'


def _pair(
    settings: Settings,
    report: Report,
    priors: Priors,
    route: str,
    images: int,
    gts: int,
    at_least: float | None,
) -> None:
    work = _work(priors, route, images, gts)
    if not has_mmdet():
        report.leave_out(work, MMDET)
        return
    boxes = [random_boxes(gts, settings.image, seed, settings.device) for seed in range(images)]
    ours, theirs = our_call(priors, boxes, route), their_call(priors, boxes)
    check_agreement(ours(), theirs())
    ours_ms, theirs_ms = time_pair(ours, theirs, settings.device, settings.seconds)
    report.add(Row(work, MMDET, ours_ms, theirs_ms, at_least=at_least))


def check_agreement(ours: ops.Assignment, theirs: list) -> None:
    """Refuses to time two calls that do different work."""
    expected = torch.stack([result.gt_inds for result in theirs])
    different = float((ours.assigned != expected).double().mean())
    if different > MAX_DIFFERENT:
        raise RuntimeError(f'{different:.2%} of the priors are assigned otherwise than by mmdet')


def _memory(settings: Settings, report: Report, priors: Priors, route: str, gts: int) -> None:
    work = f'peak extra memory, {_work(priors, route, 1, gts)}'
    if not has_mmdet():
        report.leave_out(work, MMDET)
        return
    ours, theirs = peak_mb(settings, route, gts), peak_mb(settings, 'mmdet', gts)
    report.add(Row(work, MMDET, ours_mb=ours, theirs_mb=theirs, at_least=MEMORY_AT_LEAST))


def _many(settings: Settings, report: Report, priors: Priors, gts: int) -> None:
    """Thousands of gts have no opponent: they have to run."""
    boxes = [random_boxes(gts, settings.image, 0, settings.device)]
    for route in ROUTES:
        milliseconds = time_alone(our_call(priors, boxes, route), settings.device, settings.seconds / 4)
        peak = peak_mb(settings, route, gts)
        report.add(Row(_work(priors, route, 1, gts), ours_ms=milliseconds, ours_mb=peak))
