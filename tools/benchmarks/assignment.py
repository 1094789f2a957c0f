"""`atss_assign`, grid and any-priors route, against mmdet's ATSSAssigner: time and memory."""

import torch
from _calls import our_call, their_call
from _memory import peak_mb
from _pairs import Call, spread_alone, time_against, time_alone
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


def rows(settings: Settings, report: Report) -> None:
    """All rows of the assignment."""
    priors = pyramid_priors(settings.image, settings.device)
    for gts in AT_LEAST['grid']:
        at_least = {route: AT_LEAST[route][gts] if settings.on_cpu else None for route in ROUTES}
        _against(settings, report, priors, 1, settings.count(gts), at_least)
    if not settings.on_cpu:
        images, gts, ratio = CUDA_BATCH
        _against(settings, report, priors, images, settings.count(gts), {'grid': ratio})
    if settings.times_only:
        return
    _memory(settings, report, priors, settings.count(300))
    _many(settings, report, priors, settings.count(MANY_GTS))


def _work(priors: Priors, route: str, images: int, gts: int) -> str:
    batch = f'B = {images}, ' if images > 1 else ''
    return f'atss_assign, {route}, {batch}N = {len(priors.boxes):,}, M = {gts:,}'


def _against(
    settings: Settings,
    report: Report,
    priors: Priors,
    images: int,
    gts: int,
    at_least: dict[str, float | None],
) -> None:
    """A row a route; the opponent is timed once, with both routes in turns."""
    works = [_work(priors, route, images, gts) for route in at_least]
    if not has_mmdet():
        for work in works:
            report.leave_out(work, MMDET)
        return
    boxes = [random_boxes(gts, settings.image, seed, settings.device) for seed in range(images)]
    ours, theirs = [our_call(priors, boxes, route) for route in at_least], their_call(priors, boxes)
    for call in ours:
        check_agreement(call(), theirs())
    seconds = settings.seconds * (1 + len(ours)) / 2
    their_time, our_times = time_against(theirs, ours, settings.device, seconds)
    for work, time, (route, ratio) in zip(works, our_times, at_least.items(), strict=True):
        parts = None if settings.times_only else _parts(settings, priors, boxes, route)
        report.add(Row.timed(work, MMDET, time, their_time, at_least=ratio, parts=parts))


def _parts(settings: Settings, priors: Priors, images: list[Tensor], route: str) -> dict[str, float]:
    """Milliseconds of what the work of a route includes, each done alone by an op of its own."""
    boxes, offsets = pack(images)
    shape = len(images), len(priors.boxes)
    low, high = priors.boxes[:, :2], priors.boxes[:, 2:]
    centers = torch.empty_like(low)
    pairs = torch.cat([box.expand(min(TOPK, size), 4) for box in boxes for size in priors.sizes])
    calls: dict[str, Call] = {
        'filling the two results with zeros': lambda: (offsets.new_zeros(shape), boxes.new_zeros(shape)),
        f'aligned_box_iou of {len(pairs):,} candidates': lambda: ops.aligned_box_iou(pairs, pairs),
    }
    if route != 'grid':
        calls['one pass over the centres of the priors'] = lambda: torch.add(low, high, out=centers)
    return {name: time_alone(call, settings.device, settings.seconds / 30) for name, call in calls.items()}


def check_agreement(ours: ops.Assignment, theirs: list) -> None:
    """Refuses to time two calls that do different work."""
    expected = torch.stack([result.gt_inds for result in theirs])
    different = float((ours.assigned != expected).double().mean())
    if different > MAX_DIFFERENT:
        raise RuntimeError(f'{different:.2%} of the priors are assigned otherwise than by mmdet')


def _memory(settings: Settings, report: Report, priors: Priors, gts: int) -> None:
    works = {route: f'peak extra memory, {_work(priors, route, 1, gts)}' for route in ROUTES}
    if not has_mmdet():
        for work in works.values():
            report.leave_out(work, MMDET)
        return
    theirs = peak_mb(settings, 'mmdet', gts)
    for route, work in works.items():
        ours = peak_mb(settings, route, gts)
        report.add(Row(work, MMDET, ours_mb=ours, theirs_mb=theirs, at_least=MEMORY_AT_LEAST))


def _many(settings: Settings, report: Report, priors: Priors, gts: int) -> None:
    """Thousands of gts have no opponent: they have to run."""
    boxes = [random_boxes(gts, settings.image, 0, settings.device)]
    for route in ROUTES:
        time = spread_alone(our_call(priors, boxes, route), settings.device, settings.seconds / 4)
        report.add(Row.timed(_work(priors, route, 1, gts), None, time, ours_mb=peak_mb(settings, route, gts)))
