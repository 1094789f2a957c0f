"""The IoU calculator inside mmdet's own assigners, against mmdet's calculator."""

import pytest
import torch
from mmdet.models.task_modules import BboxOverlaps2D as MMDetBboxOverlaps2D
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from scenes import KINDS, random_boxes, random_scene

from atss_ext import ops
from atss_ext.assigners.bbox_overlaps import BboxOverlaps2D

OURS = {'type': 'atss_ext.BboxOverlaps2D'}
THEIRS = {'type': 'BboxOverlaps2D'}


def boxes_of(count: int, seed: int) -> torch.Tensor:
    return random_boxes('mixed', count, 160, 200, torch.Generator().manual_seed(seed))


def test_built_by_mmdets_registry():
    calculator = MMDET_TASK_UTILS.build(OURS)
    assert type(calculator) is BboxOverlaps2D
    assert repr(calculator) == 'BboxOverlaps2D()'


@pytest.mark.parametrize('mode', ['iou', 'iof', 'giou'])
@pytest.mark.parametrize('is_aligned', [False, True])
@pytest.mark.parametrize('columns', [(4, 4), (5, 4), (4, 5), (5, 5)])
@pytest.mark.parametrize('kind', [torch.Tensor, HorizontalBoxes])
def test_equals_mmdets_calculator(mode, is_aligned, columns, kind):
    boxes = boxes_of(30, 1)
    a, b = (
        torch.cat([box, torch.rand(30, 1)], 1)[:, :n]
        for box, n in zip((boxes, boxes + torch.rand(30, 4)), columns, strict=True)
    )
    expected = MMDetBboxOverlaps2D()(a, b, mode, is_aligned)
    if kind is HorizontalBoxes:
        a, b = (HorizontalBoxes(box[:, :4]) for box in (a, b))
    assert torch.equal(BboxOverlaps2D()(a, b, mode, is_aligned), expected)
    assert expected.max() > 0.3


@pytest.mark.parametrize('sizes', [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize('columns', [4, 5])
def test_empty(sizes, columns):
    a, b = (torch.zeros(size, columns) for size in sizes)
    assert BboxOverlaps2D()(a, b).shape == sizes


@pytest.mark.parametrize('mode', ['diou', 'ciou'])
def test_modes_mmdet_has_not(mode):
    a, b = boxes_of(20, 1), boxes_of(20, 2)
    assert torch.equal(BboxOverlaps2D()(a, b, mode), ops.batched_box_iou(a, b, mode))
    assert torch.equal(BboxOverlaps2D()(a, b, mode, is_aligned=True), ops.aligned_box_iou(a, b, mode))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(dtype):
    a, b = boxes_of(20, 1).to(dtype), boxes_of(30, 2).to(dtype)
    expected = MMDetBboxOverlaps2D()(a.float(), b.float()).to(dtype)
    assert torch.equal(BboxOverlaps2D()(a, b), expected)


ASSIGNERS = {
    'ATSSAssigner': {'topk': 9, 'ignore_iof_thr': 0.4},
    'MaxIoUAssigner': {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, 'min_pos_iou': 0, 'ignore_iof_thr': 0.4},
    'GridAssigner': {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, 'min_pos_iou': 0},
}


def assign(name: str, calculator: dict, seed: int, kind: str):
    scene = random_scene(seed, kind, 12, 130, 170, num_ignored=3)
    assigner = MMDET_TASK_UTILS.build({'type': name, **ASSIGNERS[name], 'iou_calculator': calculator})
    predictions = scene.predictions
    arguments = {'gt_instances': scene.gts}
    if name == 'ATSSAssigner':
        arguments['num_level_priors'] = scene.sizes
    if name == 'GridAssigner':
        predictions.responsible_flags = torch.arange(len(scene.priors)) % 3 > 0
    else:
        arguments['gt_instances_ignore'] = scene.ignored_instances
    return assigner.assign(predictions, **arguments)


@pytest.mark.parametrize('name', ASSIGNERS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('seed', range(3))
def test_mmdets_assigners_assign_the_same(name, kind, seed):
    ours, theirs = assign(name, OURS, seed, kind), assign(name, THEIRS, seed, kind)
    assert torch.equal(ours.gt_inds, theirs.gt_inds)
    assert torch.equal(ours.max_overlaps, theirs.max_overlaps)
    assert torch.equal(ours.labels, theirs.labels)
    assert kind in ('tiny', 'outside') or int((theirs.gt_inds > 0).sum()) > 0


@pytest.mark.parametrize('kind', ['mixed', 'huge', 'crowded'])
def test_mmdets_approx_assigner_assigns_the_same(kind):
    """Two approximating boxes a prior, as Guided Anchoring has them."""
    scene = random_scene(1, kind, 12, 130, 170)
    predictions = InstanceData(priors=scene.priors)
    predictions.approxs = torch.stack([scene.priors, scene.priors + 3], 1)  # [N, 2, 4]
    results = []
    for calculator in (OURS, THEIRS):
        config = {'type': 'ApproxMaxIoUAssigner', 'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4}
        assigner = MMDET_TASK_UTILS.build({**config, 'iou_calculator': calculator})
        results.append(assigner.assign(predictions, scene.gts))
    assert torch.equal(results[0].gt_inds, results[1].gt_inds)
    assert torch.equal(results[0].max_overlaps, results[1].max_overlaps)
    assert int((results[0].gt_inds > 0).sum()) > 0


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ((torch.zeros(3, 6), torch.zeros(3, 4)), r'boxes1 must be \[..., 4\], got \[3, 6\]'),
        ((torch.zeros(3, 4), torch.zeros(3, 4), 'l1'), "got 'l1'"),
        ((torch.zeros(3, 4), torch.zeros(2, 4), 'iou', True), r'like boxes1, got \[2, 4\]'),
    ],
)
def test_bad_arguments_are_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        BboxOverlaps2D()(*arguments)
