"""`batched_box_iou` against torchvision and mmdet; on a GPU also against copying as many bytes."""

import torch
import torchvision
from _pairs import Call, graph_ms, time_against, time_alone
from _report import Report, Row
from _scenes import pyramid_priors, random_boxes
from _settings import Settings, has_mmdet
from torch import Tensor

from atss_ext import ops

GTS = 100
TORCHVISION, MMDET = 'torchvision box_iou', 'mmdet bbox_overlaps'
# Ratios to reach on the CPU.
AT_LEAST = {TORCHVISION: 5, MMDET: 8}
COPY = 'device copy of as many bytes'
# Share of the copy's bandwidth to reach, on a batch whose result (140 MB) no cache holds.
COPY_AT_LEAST = 0.8
CUDA_BATCH = 16


def rows(settings: Settings, report: Report) -> None:
    """All rows of the overlaps."""
    priors = pyramid_priors(settings.image, settings.device).boxes
    boxes = random_boxes(settings.count(GTS), settings.image, 0, settings.device)
    work = f'batched_box_iou, {len(priors):,} x {len(boxes)}'
    _pair(settings, report, work, TORCHVISION, priors, boxes, lambda: torchvision.ops.box_iou(priors, boxes))
    if has_mmdet():
        from mmdet.structures.bbox import bbox_overlaps

        _pair(settings, report, work, MMDET, priors, boxes, lambda: bbox_overlaps(priors, boxes))
    else:
        report.leave_out(work, MMDET)
    if not settings.on_cpu:
        batch = settings.count(CUDA_BATCH)
        many = [random_boxes(len(boxes), settings.image, seed, settings.device) for seed in range(batch)]
        _against_copy(settings, report, priors.expand(batch, -1, -1).contiguous(), torch.stack(many))


def _pair(
    settings: Settings,
    report: Report,
    work: str,
    against: str,
    priors: Tensor,
    boxes: Tensor,
    theirs: Call,
) -> None:
    def ours() -> Tensor:
        return ops.batched_box_iou(priors, boxes)

    torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-5)
    their_time, (our_time,) = time_against(theirs, [ours], settings.device, settings.seconds)
    shape = len(priors), len(boxes)
    parts = None
    if not settings.times_only:
        filled = time_alone(lambda: boxes.new_zeros(shape), settings.device, settings.seconds / 30)
        parts = {'filling the result with zeros': filled}
    at_least = AT_LEAST[against] if settings.on_cpu else None
    report.add(Row.timed(work, against, our_time, their_time, at_least=at_least, parts=parts))


def _against_copy(settings: Settings, report: Report, boxes1: Tensor, boxes2: Tensor) -> None:
    """Effective bandwidth: a copy that reads and writes as many bytes in total as the op has to.

    Both are captured into CUDA graphs, which leaves out the launches from Python.
    """
    images, count, gts = *boxes1.shape[:2], boxes2.size(1)
    moved = 4 * (boxes1.numel() + boxes2.numel() + images * count * gts)
    source = torch.zeros(moved // 2, dtype=torch.uint8, device=boxes1.device)
    target = torch.empty_like(source)
    calls, seconds = (2, 0.1) if settings.quick else (10, 1.5)
    ours_ms = graph_ms(lambda: ops.batched_box_iou(boxes1, boxes2), calls, seconds)
    theirs_ms = graph_ms(lambda: target.copy_(source), calls, seconds)
    bandwidth = f'{moved / ours_ms / 1e6:,.0f} GB/s'
    work = f'batched_box_iou, B = {images}, {count:,} x {gts}, {bandwidth}'
    report.add(Row(work, COPY, ours_ms, theirs_ms, at_least=COPY_AT_LEAST))
