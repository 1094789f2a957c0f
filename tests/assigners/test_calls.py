"""What any assigner is handed and may return: mmdet's own in our head, bad boxes, overlaps."""

from pathlib import Path

import pytest
import torch
from mmdet.models.task_modules.assigners import ATSSAssigner as MMDetATSSAssigner
from mmdet.models.task_modules.assigners import (
    BaseAssigner,
    CenterRegionAssigner,
    DynamicSoftLabelAssigner,
    MaxIoUAssigner,
    SimOTAAssigner,
    TaskAlignedAssigner,
)
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from mmengine.structures import InstanceData
from scenes import literal_iou, random_scene

from atss_ext.assigners import PackedGts, Predictions, PyramidPriors, assign_batch, needs_predictions
from atss_ext.assigners.base import AssignmentError
from atss_ext.registry import MODELS

MODEL = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'models' / 'atss_r18_small.py'
THRESHOLDS = {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4}
CENTER_REGION = {'pos_scale': 0.2, 'neg_scale': 0.5}

# Everything mmdet registers: its arguments, and why it is refused, None for one that fits.
STOCK = {
    'ATSSAssigner': ({'topk': 9}, None),
    'MaxIoUAssigner': (THRESHOLDS, None),
    'CenterRegionAssigner': (CENTER_REGION, None),
    'ApproxMaxIoUAssigner': (THRESHOLDS, 'needs pred_instances.approxs'),
    'DynamicSoftLabelAssigner': ({}, None),
    'GridAssigner': (THRESHOLDS, 'needs pred_instances.responsible_flags'),
    'HungarianAssigner': ({'match_costs': [{'type': 'FocalLossCost'}]}, 'needs pred_instances.scores'),
    'MultiInstanceAssigner': (THRESHOLDS, 'returns [43, 2] gts for 85 priors instead of one each'),
    'PointAssigner': ({}, 'needs points with their stride as priors ([N, 3])'),
    'RegionAssigner': (
        {},
        "cannot be called with priors, gts and ignored gts (missing a required argument: 'featmap_sizes')",
    ),
    'SimOTAAssigner': ({}, None),
    'TaskAlignedAssigner': ({'topk': 9}, None),
    'TopkHungarianAssigner': (
        {'topk': 9},
        "cannot be called with priors, gts and ignored gts (missing a required argument: 'gt_labels')",
    ),
    'UniformAssigner': (
        {'pos_ignore_thr': 0.15, 'neg_ignore_thr': 0.7},
        'needs pred_instances.decoder_priors',
    ),
}


def head_with(assigner: str, **arguments):
    model = Config.fromfile(MODEL).model
    model.train_cfg.assigner = {'type': f'mmdet.{assigner}', **arguments}
    return MODELS.build({**model.bbox_head, 'train_cfg': model.train_cfg, 'test_cfg': model.test_cfg})


def losses_of(head) -> list[torch.Tensor]:
    """Of two images, the second without a gt: 64 x 64 pixels, 85 priors of 32 to 256 pixels."""
    features = [torch.randn(2, 64, 64 // stride, 64 // stride) for stride in (8, 16, 32, 64)]
    box = torch.tensor([[10.0, 8.0, 50.0, 44.0]])
    gts = [
        InstanceData(bboxes=box, labels=torch.tensor([3])),
        InstanceData(bboxes=box[:0], labels=torch.tensor([], dtype=torch.long)),
    ]
    metas = [{'img_shape': (64, 64), 'pad_shape': (64, 64)}] * 2
    losses = head.loss_by_feat(*head(features), gts, metas)
    return [level for levels in losses.values() for level in levels]


def test_the_table_is_complete():
    registered = {
        name
        for name, kind in TASK_UTILS.module_dict.items()
        if isinstance(kind, type) and issubclass(kind, BaseAssigner) and kind is not BaseAssigner
    }
    assert registered == set(STOCK)


@pytest.mark.parametrize('name', [name for name, (_, refusal) in STOCK.items() if refusal is None])
def test_assigners_that_go_by_priors_and_gts_fit_our_head(name):
    losses = losses_of(head_with(name, **STOCK[name][0]))
    assert len(losses) == 3 * 4
    assert all(torch.isfinite(loss) for loss in losses)
    boxes = sum(losses[4:8])
    assert boxes > 0  # the gt has positives
    sum(losses).backward()


@pytest.mark.parametrize('name', [name for name, (_, refusal) in STOCK.items() if refusal is not None])
def test_other_assigners_are_refused_in_one_sentence(name):
    arguments, refusal = STOCK[name]
    with pytest.raises(AssignmentError) as caught:
        losses_of(head_with(name, **arguments))
    sentence = str(caught.value)
    assert sentence.startswith(f'{name} {refusal}')
    assert sentence.endswith(': choose an assigner of priors and gts, such as ATSSAssigner or MaxIoUAssigner')


def test_predictions_reach_mmdets_assigners_as_their_own_heads_pass_them(monkeypatch):
    """Probabilities or logits, boxes or points with strides: as TOOD, YOLOX, RTMDet and DDOD do."""
    scene = random_scene(1, 'mixed', 3, 96, 128)
    logits, boxes = torch.randn(1, len(scene.priors), 80), scene.priors[None] + 1
    strides = [(8.0, 8.0), (16.0, 16.0), (32.0, 32.0), (64.0, 64.0), (128.0, 128.0)][: len(scene.sizes)]
    points = torch.cat(
        [
            torch.cat([(part[:, :2] + part[:, 2:]) / 2, part.new_full((len(part), 2), stride)], 1)
            for part, (stride, _) in zip(scene.priors.split(scene.sizes), strides, strict=True)
        ]
    )
    gts, valid = PackedGts.from_instances([scene.gts]), torch.ones(1, len(scene.priors), dtype=torch.bool)
    valid[0, ::7] = False
    cases = {
        TaskAlignedAssigner: (TaskAlignedAssigner(topk=9), logits.sigmoid(), scene.priors),
        SimOTAAssigner: (SimOTAAssigner(), logits.sigmoid(), points),
        DynamicSoftLabelAssigner: (DynamicSoftLabelAssigner(), logits, points),
        MMDetATSSAssigner: (MMDetATSSAssigner(topk=9, alpha=0.8), logits, scene.priors),
    }
    for kind, (assigner, scores, priors) in cases.items():
        given = InstanceData(priors=priors[valid[0]], scores=scores[0][valid[0]], bboxes=boxes[0][valid[0]])
        levels = [int(part.sum()) for part in valid[0].split(scene.sizes)]
        arguments = (given, levels) if kind is MMDetATSSAssigner else (given,)
        wanted = torch.full((len(scene.priors),), -1)
        wanted[valid[0]] = assigner.assign(*arguments, scene.gts).gt_inds
        assert needs_predictions(assigner)
        got = assign_batch(
            assigner,
            PyramidPriors(scene.priors, scene.sizes, strides=strides),
            gts,
            valid,
            Predictions(logits, boxes),
        )
        assert torch.equal(got.assigned[0], wanted), kind
        assert (wanted > 0).any(), kind


def test_what_predictions_lack_is_said():
    scene = random_scene(1, 'mixed', 3, 96, 128)
    gts = PackedGts.from_instances([scene.gts])
    arguments = PyramidPriors(scene.priors, scene.sizes), gts
    with pytest.raises(
        AssignmentError, match='TaskAlignedAssigner ranks priors by predicted scores and boxes'
    ):
        assign_batch(TaskAlignedAssigner(topk=9), *arguments)
    with pytest.raises(AssignmentError, match='SimOTAAssigner measures distances in strides and needs a '):
        assign_batch(SimOTAAssigner(), *arguments)
    found = Predictions(torch.rand(1, len(scene.priors), 5), scene.priors[None], are_logits=False)
    with pytest.raises(AssignmentError, match='ATSSAssigner needs logits as scores, not probabilities'):
        assign_batch(MMDetATSSAssigner(topk=9, alpha=0.8), *arguments, predictions=found)


def test_mmdets_atss_by_predictions_fits_our_head():
    losses = losses_of(head_with('ATSSAssigner', topk=9, alpha=0.8))
    assert sum(losses[4:8]) > 0


def test_an_attribute_error_of_the_assigner_itself_is_no_refusal():
    class Broken:
        def assign(self, pred_instances, gt_instances, gt_instances_ignore=None):
            return gt_instances.bboxes.no_such_thing

    scene = random_scene(0, 'mixed', 2, 64, 64)
    with pytest.raises(AttributeError, match='no_such_thing'):
        assign_batch(
            Broken(), PyramidPriors(scene.priors, scene.sizes), PackedGts.from_instances([scene.gts])
        )


@pytest.mark.parametrize(
    'assigner', [CenterRegionAssigner(**CENTER_REGION), MaxIoUAssigner(**THRESHOLDS, match_low_quality=False)]
)
def test_ious_are_those_of_positives_with_their_gts(assigner):
    """Also of an assigner that reports none; invalid priors come back as ignored, with none."""
    scenes = [random_scene(seed, 'mixed', count, 96, 128) for seed, count in ((0, 12), (1, 0))]
    priors, sizes = scenes[0].priors, scenes[0].sizes
    valid = torch.ones(2, len(priors), dtype=torch.bool)
    valid[:, ::7] = False
    gts = PackedGts.from_instances([scene.gts for scene in scenes])
    result = assign_batch(assigner, PyramidPriors(priors, sizes), gts, valid)
    expected = scenes[0].boxes.double().tolist()
    positives = (result.assigned[0] > 0).nonzero()[:, 0].tolist()
    assert positives
    for prior in positives:
        iou = literal_iou(priors[prior].double().tolist(), expected[result.assigned[0, prior] - 1])
        assert result.ious[0, prior].item() == pytest.approx(iou, abs=1e-6)
    assert not result.ious[result.assigned <= 0].any()
    assert (result.assigned[~valid] == -1).all()
    direct = assigner.assign(InstanceData(priors=priors[valid[0]]), scenes[0].gts)
    assert torch.equal(result.assigned[0, valid[0]], direct.gt_inds)


@pytest.mark.parametrize('box', [[4.0, 4.0, float('nan'), 9.0], [9.0, 4.0, 4.0, 9.0]])
def test_bad_boxes_are_refused_by_a_class_of_their_own(box):
    sound = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0]]), labels=torch.tensor([0]))
    bad = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0], box]), labels=torch.tensor([0, 1]))
    with pytest.raises(AssignmentError, match='gt box 1 of image 1 of the batch is'):
        PackedGts.from_instances([sound, bad])
    with pytest.raises(AssignmentError, match='ignore box 1 of image 0'):
        PackedGts.from_instances([sound], [bad])
