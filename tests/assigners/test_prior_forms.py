"""Levels, strides and form of bare priors, against the generators of mmdet that made them."""

import re

import pytest
import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator, MlvlPointGenerator
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from scenes import random_scene

from atss_ext.assigners import (
    ATSSAssigner,
    CostATSSAssigner,
    DynamicSoftLabelAssigner,
    PackedGts,
    Predictions,
    PyramidPriors,
    SimOTAAssigner,
    TaskAlignedAssigner,
    assign_batch,
)
from atss_ext.assigners.base import AssignmentError
from atss_ext.assigners.per_image import read_call
from atss_ext.assigners.prior_forms import (
    are_points,
    boxes_of_points,
    levels_of_boxes,
    levels_of_points,
    strides_of_boxes,
)

STRIDES = [8, 16, 32, 64, 128]
ONE = {'ratios': [1.0], 'octave_base_scale': 8, 'scales_per_octave': 1}
NINE = {'ratios': [0.5, 1.0, 2.0], 'octave_base_scale': 4, 'scales_per_octave': 3}
# Shapes of one level are met again on the next.
REPEATED = {'ratios': [1.0], 'scales': [4.0, 8.0]}
GENERATORS = {
    'one': ONE,
    'one, centred': {**ONE, 'center_offset': 0.5},
    'three ratios': {**ONE, 'ratios': [0.5, 1.0, 2.0]},
    'three scales': {**ONE, 'scales_per_octave': 3},
    'nine': NINE,
    'nine, centred': {**NINE, 'center_offset': 0.5},
    'repeated shapes': REPEATED,
}


def anchors(settings: dict, height: int, width: int, strides=STRIDES) -> list[torch.Tensor]:
    generator = AnchorGenerator(strides=strides, **settings)
    pairs = [stride if isinstance(stride, tuple) else (stride, stride) for stride in strides]
    return generator.grid_priors([(-(-height // h), -(-width // w)) for w, h in pairs], device='cpu')


def counts(levels) -> list[int]:
    return [len(level) for level in levels]


@pytest.mark.parametrize('name', GENERATORS)
@pytest.mark.parametrize('size', [(96, 128), (130, 200), (8, 640), (640, 8), (300, 40), (128, 128)])
def test_levels_are_those_of_the_generator(name, size):
    """Also where the last levels, one or two, are a single location, or all are one row."""
    levels = anchors(GENERATORS[name], *size)
    assert levels_of_boxes(torch.cat(levels)) == counts(levels)
    assert strides_of_boxes(torch.cat(levels), counts(levels)) == [(float(s), float(s)) for s in STRIDES]


def test_levels_of_other_strides_and_far_images():
    pairs = [(8, 4), (16, 8), (32, 16)]
    levels = anchors(ONE, 96, 128, pairs)
    assert levels_of_boxes(torch.cat(levels)) == counts(levels)
    assert strides_of_boxes(torch.cat(levels), counts(levels)) == [(8.0, 4.0), (16.0, 8.0), (32.0, 16.0)]
    large = anchors(NINE, 1333, 2000)
    assert levels_of_boxes(torch.cat(large)) == counts(large)


@pytest.mark.parametrize('name', GENERATORS)
@pytest.mark.parametrize(('border', 'size'), [(0, (256, 320)), (16, (200, 264)), (0, (640, 520))])
def test_levels_with_anchors_missing(name, border, size):
    """As ``allowed_border`` leaves them, and the padding of a smaller image; a level may be gone."""
    levels = anchors(GENERATORS[name], *size)
    height, width = size
    kept = []
    for level in levels:
        inside = (level[:, :2] >= -border).all(1)
        inside &= (level[:, 2] < width + border) & (level[:, 3] < height + border)
        kept.append(level[inside])
    kept = [level for level in kept if len(level)]
    assert len(kept) >= 2
    assert len(kept[0]) < len(levels[0])
    assert levels_of_boxes(torch.cat(kept)) == counts(kept)


def test_a_shape_that_one_location_alone_has_left_is_no_level_of_its_own():
    """The widest anchor fits in the middle only, the others around it."""
    levels = anchors({**ONE, 'ratios': [0.25, 1.0]}, 256, 256, [32, 64])
    kept = [level[((level >= 0) & (level < 257)).all(1)] for level in levels]
    kept = [level for level in kept if len(level)]
    assert levels_of_boxes(torch.cat(kept)) == counts(kept)


@pytest.mark.parametrize(
    ('boxes', 'why'),
    [
        (torch.cat(anchors(NINE, 8, 8)), '45 of them have one and the same centre'),
        (
            torch.cat([*anchors(NINE, 96, 128), anchors(NINE, 8, 8)[4][:4]]),
            '13 of them have one and the same centre',
        ),
        (
            torch.rand(60, 4, generator=torch.Generator().manual_seed(0)).cumsum(1) * 100,
            'their centres do not go level by level, by rows and columns',
        ),
    ],
)
def test_levels_that_cannot_be_told_are_one_sentence(boxes, why):
    sentence = (
        f'the levels of {len(boxes)} priors cannot be told ({why}): pass num_level_priors, or take a head '
        'that does, such as mmdet.ATSSHead or atss_ext.ATSSHead'
    )
    with pytest.raises(AssignmentError, match=f'^{re.escape(sentence)}$'):
        levels_of_boxes(boxes)


def test_strides_that_cannot_be_told_are_one_sentence():
    alone = torch.cat(anchors(ONE, 8, 8))
    with pytest.raises(AssignmentError, match='a level of one location does not show its stride'):
        strides_of_boxes(alone, [1] * 5)
    uneven = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [20, 0, 28, 8]])
    with pytest.raises(AssignmentError, match='the centres of a level lie on no grid'):
        strides_of_boxes(uneven, [3])


@pytest.mark.parametrize('count', [0, 1])
def test_levels_of_hardly_any_prior(count):
    assert levels_of_boxes(torch.tensor([[0.0, 0, 8, 8]])[:count]) == [count]
    assert levels_of_points(torch.tensor([[4.0, 4, 8, 8]])[:count]) == [count]


@pytest.mark.parametrize('offset', [0, 0.5])
@pytest.mark.parametrize('size', [(96, 128), (8, 640), (640, 8), (8, 8)])
def test_levels_of_points_are_those_of_the_generator(offset, size):
    generator = MlvlPointGenerator(STRIDES, offset=offset)
    shapes = [(-(-size[0] // s), -(-size[1] // s)) for s in STRIDES]
    levels = generator.grid_priors(shapes, device='cpu', with_stride=True)
    assert levels_of_points(torch.cat(levels)) == counts(levels)
    if size != (8, 8):
        assert are_points(torch.cat(levels), expected=False)
    assert are_points(torch.cat(levels), expected=True)


@pytest.mark.parametrize('name', GENERATORS)
def test_anchors_are_no_points(name):
    """Also those of a corner, of which every coordinate is positive and none inverted."""
    levels = anchors(GENERATORS[name], 96, 128)
    boxes = torch.cat(levels)
    for expected in (False, True):
        assert not are_points(boxes, expected)
        assert not are_points(boxes[(boxes >= 0).all(1)], expected)


def test_priors_that_are_counted_by_level_are_no_points():
    """Five anchors could be points by their numbers."""
    boxes = torch.cat(anchors(ONE, 16, 16, [8, 16]))
    assert len(boxes) == 5
    assert are_points(boxes, expected=True)
    pred = InstanceData(priors=boxes, scores=torch.zeros(5, 2), bboxes=boxes)
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 9, 9]]), labels=torch.tensor([0]))
    call = read_call(SimOTAAssigner(), pred, ([4, 1], gts, None), {}, by_level=True, expect_points=True)
    assert call.points is None
    assert torch.equal(call.priors.boxes, boxes)


def test_boxes_of_points_are_the_papers_anchors():
    points = torch.tensor([[0.0, 0, 8, 8], [24, 8, 16, 32]])
    assert boxes_of_points(points).tolist() == [[-32, -32, 32, 32], [-40, -120, 88, 136]]
    far = torch.tensor([[2052.0, 12, 8, 8]], dtype=torch.float16)
    assert boxes_of_points(far).tolist() == [[2020, -20, 2084, 44]]
    levels = MlvlPointGenerator(STRIDES, offset=0).grid_priors([(3, 4)] * 5, device='cpu', with_stride=True)
    wanted = AnchorGenerator(strides=STRIDES, **ONE).grid_priors([(3, 4)] * 5, device='cpu')
    assert torch.equal(boxes_of_points(torch.cat(levels)), torch.cat(wanted))


def test_boxes_of_mmdets_own_type_are_boxes():
    scene = random_scene(3, 'mixed', 6, 96, 128)
    given = InstanceData(priors=HorizontalBoxes(scene.priors))
    result = ATSSAssigner().assign(given, scene.gts)
    expected = ATSSAssigner().assign(scene.predictions, scene.sizes, scene.gts)
    assert torch.equal(result.gt_inds, expected.gt_inds)


def test_arguments_are_told_apart_by_type():
    """Every way to say the same."""
    scene = random_scene(3, 'mixed', 6, 96, 128)
    given, gts = scene.predictions, scene.gts
    regions = InstanceData(bboxes=torch.tensor([[0.0, 0, 100, 60]]))
    assigner = ATSSAssigner(ignore_iof_thr=0.3)
    expected = assigner.assign(given, scene.sizes, gts, regions)
    assert (expected.gt_inds == -1).any()
    named = {'gt_instances': gts, 'gt_instances_ignore': regions}
    for args, kwargs in (
        ((gts, regions), {}),
        ((gts,), {'gt_instances_ignore': regions}),
        ((), named),
        ((), {**named, 'num_level_priors': scene.sizes}),
        ((tuple(scene.sizes), gts), {'gt_instances_ignore': regions}),
        ((gts, regions, 1, 6), {}),
        ((gts, regions), {'img_meta': {}}),
    ):
        assert torch.equal(assigner.assign(given, *args, **kwargs).gt_inds, expected.gt_inds)
    with pytest.raises(TypeError, match=r"assign\(\) got multiple values for argument 'gt_instances'"):
        assigner.assign(given, gts, gt_instances=gts)
    for args, kinds in (
        ((), 'nothing'),
        ((gts, {}), 'gt_instances: InstanceData, gt_instances_ignore: dict'),
    ):
        with pytest.raises(
            AssignmentError, match=f'^ATSSAssigner takes gts .* but was called with {kinds}: '
        ):
            assigner.assign(given, *args)


@pytest.mark.parametrize('kind', [TaskAlignedAssigner, SimOTAAssigner, DynamicSoftLabelAssigner])
@pytest.mark.parametrize('lacking', ['scores', 'bboxes'])
def test_predictions_that_are_missing_are_one_sentence(kind, lacking):
    scene = random_scene(1, 'mixed', 3, 96, 128)
    given = InstanceData(priors=scene.priors, scores=torch.rand(len(scene.priors), 80), bboxes=scene.priors)
    given.pop(lacking)
    with pytest.raises(AssignmentError, match=f'^{kind.__name__} ranks priors by predicted scores and boxes'):
        kind().assign(given, scene.gts)


def test_predictions_that_are_not_used_are_not_looked_at():
    """A GPU would have to finish them first; those of the device 'meta' have no values at all."""
    scene = random_scene(1, 'mixed', 3, 96, 128)
    scores, boxes = torch.empty(len(scene.priors), 80, device='meta'), scene.priors.to('meta')
    given = InstanceData(priors=scene.priors)
    given.set_field(scores, 'scores')
    given.set_field(boxes, 'bboxes')
    wanted = ATSSAssigner().assign(scene.predictions, scene.sizes, scene.gts)
    assert torch.equal(ATSSAssigner().assign(given, scene.sizes, scene.gts).gt_inds, wanted.gt_inds)


@pytest.mark.parametrize('kind', [CostATSSAssigner, DynamicSoftLabelAssigner])
def test_scores_within_0_and_1_are_logits_where_the_own_head_has_logits(kind):
    """But not as TOOD's head and YOLOX's call; beyond, they are logits for everyone."""
    scene = random_scene(1, 'mixed', 8, 96, 128, levels=4)
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(len(scene.priors), 80, generator=generator)
    given = InstanceData(priors=scene.priors, scores=scores, bboxes=scene.priors + 1)
    strides = [(float(s), float(s)) for s in STRIDES[:4]]
    priors = PyramidPriors(scene.priors, scene.sizes, strides=strides)
    gts = PackedGts.from_instances([scene.gts])

    def wanted(logits):
        return assign_batch(kind(), priors, gts, predictions=Predictions(logits[None], given.bboxes[None]))

    by_logit, by_probability = wanted(scores).assigned[0], wanted(scores.logit(1e-7)).assigned[0]
    assert not torch.equal(by_logit, by_probability)
    assert torch.equal(kind().assign(given, scene.sizes, scene.gts).gt_inds, by_logit)
    assert torch.equal(kind().assign(given, scene.gts, None).gt_inds, by_logit)
    assert torch.equal(kind().assign(given, scene.gts, None, 1, 6).gt_inds, by_probability)
    assert torch.equal(kind().assign(given, gt_instances=scene.gts).gt_inds, by_probability)
