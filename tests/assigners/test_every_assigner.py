"""Laws that every assigner of the package obeys, the heads that host it, and what it says to bad input."""

import functools

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from scenes import KINDS, Scene, random_scene
from torch.utils._python_dispatch import TorchDispatchMode

from atss_ext import assigners
from atss_ext.assigners import BatchAssigner, PackedGts, Predictions, PyramidPriors, assign_batch, rows
from atss_ext.assigners.base import AssignmentError
from atss_ext.registry import MODELS, TASK_UTILS

LEVELS, CLASSES = 4, 80
STRIDES = [(8.0, 8.0), (16.0, 16.0), (32.0, 32.0), (64.0, 64.0)]
RANGES = [(-1, 32), (32, 64), (64, 128), (128, float('inf'))]
THRESHOLDS = {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4}

# Every assigner, by what it is built from; a new one is one line.
ASSIGNERS = {
    'ATSSAssigner': {},
    'CostATSSAssigner': {},
    'DynamicSoftLabelAssigner': {},
    'MaxIoUAssigner': THRESHOLDS,
    'OTAAssigner': {'iterations': 10},
    'SimOTAAssigner': {},
    'SpatialScaleAssigner': {'regress_ranges': RANGES},
    'TaskAlignedAssigner': {},
    'TopKAssigner': {},
}
# The same with other settings, for the laws.
VARIANTS = {
    **{name: (name, arguments) for name, arguments in ASSIGNERS.items()},
    'MaxIoU official': ('MaxIoUAssigner', THRESHOLDS | {'center_inside': True}),
    'MaxIoU first': ('MaxIoUAssigner', THRESHOLDS | {'gt_max_assign_all': False}),
    'SSC sampled': ('SpatialScaleAssigner', {'regress_ranges': RANGES, 'center_sampling_radius': 1.5}),
    'TopK ignoring': ('TopKAssigner', {'ignore_iof_thr': 0.4}),
    'CostATSS ignoring': ('CostATSSAssigner', {'ignore_iof_thr': 0.4}),
}
every_variant = pytest.mark.parametrize('variant', VARIANTS)
every_assigner = pytest.mark.parametrize('name', ASSIGNERS)


def build(variant: str):
    name, arguments = VARIANTS[variant]
    return TASK_UTILS.build({'type': f'atss_ext.{name}', **arguments})


@functools.cache
def images(counts=(7, 0, 12, 1), height: int = 96, width: int = 128, dtype=torch.float32):
    """Scenes on the same priors, and what a head may predict there."""
    scenes = [
        random_scene(seed, KINDS[seed % 4], n, height, width, levels=LEVELS, num_ignored=seed % 3)
        for seed, n in enumerate(counts)
    ]
    generator = torch.Generator().manual_seed(5)
    priors = scenes[0].priors
    logits, boxes = [], []
    for scene in scenes:
        logits.append(torch.randn(len(priors), CLASSES, generator=generator) * 2 - 2)
        boxes.append(priors + torch.randn(len(priors), 4, generator=generator) * 5)
        if len(scene.boxes):
            own = torch.randint(0, len(scene.boxes), (len(priors) // 3,), generator=generator)
            boxes[-1][::3][: len(own)] = scene.boxes[own] + torch.rand(len(own), 4, generator=generator)
    return scenes, Predictions(torch.stack(logits).to(dtype), torch.stack(boxes).to(dtype))


def pack(scenes) -> PackedGts:
    return PackedGts.from_instances([s.gts for s in scenes], [s.ignored_instances for s in scenes])


def run(assigner, scenes, predictions, valid=None):
    return assign_batch(
        assigner,
        PyramidPriors(scenes[0].priors, scenes[0].sizes, strides=STRIDES),
        pack(scenes),
        valid,
        predictions,
    )


def rows_of(batch):
    """Everything an assigner returns, the metrics where it has any."""
    return [batch.assigned, batch.ious] + ([] if batch.metrics is None else [batch.metrics])


def assert_sound(batch, scenes, valid=None) -> None:
    """Numbers of gts that exist, overlaps of positives only; nothing that is no number."""
    count = torch.tensor([len(scene.boxes) for scene in scenes])[:, None]
    shape = (len(scenes), len(scenes[0].priors))
    assert batch.assigned.dtype == torch.int64
    assert batch.assigned.shape == batch.ious.shape == shape
    assert ((batch.assigned >= -1) & (batch.assigned <= count)).all()
    if valid is not None:
        assert (batch.assigned[~valid] == -1).all()
    for values in rows_of(batch)[1:]:
        assert values.isfinite().all()
        assert (values >= 0).all()
        assert not values[batch.assigned <= 0].any()
    assert (batch.ious <= 1 + 1e-6).all()


def test_the_table_is_complete():
    known = {name for name, kind in vars(assigners).items() if hasattr(kind, 'assign')}
    assert known == set(ASSIGNERS)
    for name in ASSIGNERS:
        assert isinstance(build(name), BatchAssigner)


@every_variant
def test_nothing_depends_on_the_batch_beside(variant):
    scenes, found = images()
    assigner = build(variant)
    together = run(assigner, scenes, found)
    assert_sound(together, scenes)
    assert (together.assigned > 0).sum() > 20
    assert (together.assigned[1] <= 0).all()
    for order in ([2], [1], [3, 2], [0, 1, 2]):
        alone = run(
            assigner, [scenes[i] for i in order], Predictions(found.scores[order], found.boxes[order])
        )
        for mine, all_rows in zip(rows_of(alone), rows_of(together), strict=True):
            assert torch.equal(mine, all_rows[order])


@every_variant
def test_priors_in_the_padding_take_no_part(variant):
    """As if they were not there, whatever they look like; each image has its own."""
    scenes, found = images()
    assigner = build(variant)
    priors, sizes = scenes[0].priors, scenes[0].sizes
    centers = (priors[:, :2] + priors[:, 2:]) / 2
    limits = torch.tensor([[128.0, 96], [40, 96], [100, 50], [128, 17]])
    valid = (centers[None] < limits[:, None]).all(2)
    batch = run(assigner, scenes, found, valid)
    assert_sound(batch, scenes, valid)
    for image, own in enumerate(valid):
        scene = random_scene(0, 'mixed', 0, 96, 128, levels=LEVELS)
        scene.priors, scene.sizes = priors[own], [int(level.sum()) for level in own.split(sizes)]
        scene.boxes, scene.labels = scenes[image].boxes, scenes[image].labels
        scene.ignored = scenes[image].ignored
        own_found = Predictions(found.scores[image, own][None], found.boxes[image, own][None])
        alone = run(assigner, [scene], own_found)
        for mine, padded in zip(rows_of(alone), rows_of(batch), strict=True):
            assert torch.equal(mine[0], padded[image, own])
    assert (batch.assigned > 0).any()


@every_variant
def test_an_image_without_a_usable_prior(variant):
    scenes, found = images()
    valid = torch.ones(4, len(scenes[0].priors), dtype=torch.bool)
    valid[2] = False
    batch, expected = (run(build(variant), scenes, found, mask) for mask in (valid, None))
    assert_sound(batch, scenes, valid)
    for rest in (0, 1, 3):
        assert torch.equal(batch.assigned[rest], expected.assigned[rest])


@every_variant
def test_no_gts_at_all(variant):
    scenes, found = images(counts=(0, 0))
    valid = torch.ones(2, len(scenes[0].priors), dtype=torch.bool)
    valid[1, ::3] = False
    for mask in (None, valid):
        batch = run(build(variant), scenes, found, mask)
        assert_sound(batch, scenes, mask)
        assert (batch.assigned == (0 if mask is None else valid.long() - 1)).all()


@every_variant
@pytest.mark.parametrize('sizes', [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
def test_images_of_one_prior_or_none(variant, sizes):
    scene = random_scene(0, 'mixed', 3, 16, 16, levels=LEVELS)
    scene.priors, scene.sizes = torch.tensor([[0.0, 0, 16, 16]])[: sum(sizes)], sizes
    scene.boxes = torch.tensor([[0.0, 0, 16, 16], [1.0, 1, 14, 15], [40.0, 40, 60, 60]])
    scene.ignored = scene.ignored[:0]
    found = Predictions(torch.ones(1, sum(sizes), CLASSES), scene.priors[None] + 0.5)
    batch = run(build(variant), [scene], found)
    assert_sound(batch, [scene])
    assert batch.assigned.shape == (1, sum(sizes))
    if any(sizes) and not (sizes[3] and 'SpatialScale' in VARIANTS[variant][0]):
        assert (batch.assigned > 0).all()  # eight pixels from side to side are too few for FCOS's last level


@every_variant
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(variant, dtype):
    """Half priors, gts and predictions are taken as what they are, and computed in float32."""
    scenes, found = images()

    def cast(to, scenes, found):
        changed = [
            Scene(s.priors.to(to), s.sizes, s.boxes.to(to), s.labels, s.ignored.to(to)) for s in scenes
        ]
        return changed, Predictions(found.scores.to(to), found.boxes.to(to))

    given = cast(dtype, scenes, found)
    batch = run(build(variant), *given)
    assert_sound(batch, scenes)
    assert (batch.assigned > 0).sum() > 20
    same = batch.assigned == run(build(variant), *cast(torch.float32, *given)).assigned
    assert same.double().mean() > 0.98  # but for what rounding turns: float64's, and predictions of others


@every_variant
def test_gts_outside_of_the_image(variant):
    _, found = images()
    far = random_scene(0, 'mixed', 5, 96, 128, levels=LEVELS)
    far.boxes = far.boxes + 5000
    empty = random_scene(0, 'mixed', 0, 96, 128, levels=LEVELS)
    batch = run(build(variant), [far, empty], Predictions(found.scores[:2], found.boxes[:2]))
    assert_sound(batch, [far, empty])
    assert (batch.assigned[1] == 0).all()
    if variant in ('MaxIoUAssigner', 'MaxIoU first'):  # as in mmdet: the least overlap is the highest too
        assert (batch.assigned[0] > 0).any()
    elif variant != 'OTAAssigner':  # which gives every gt one prior at least
        assert (batch.assigned[0] <= 0).all()


@every_variant
def test_predictions_with_a_graph_are_constants(variant):
    scenes, found = images()
    assigner = build(variant)
    graph = Predictions(found.scores.clone().requires_grad_(), found.boxes.clone().requires_grad_())
    batch = run(assigner, scenes, graph)
    assert not any(values.requires_grad for values in rows_of(batch))
    assert torch.equal(batch.assigned, run(assigner, scenes, found).assigned)


class ReadsBack(TorchDispatchMode):
    """Records every op that would make the host wait for a device."""

    SYNCHRONISING = ('_local_scalar_dense', 'nonzero', 'masked_select', 'equal', 'is_nonzero', 'unique')

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split('.')[0]
        boolean = name == 'index' and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in self.SYNCHRONISING or boolean:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    'variant',
    [v for v, (name, _) in VARIANTS.items() if name.startswith(('MaxIoU', 'Spa', 'TopK', 'Cost', 'OTA'))],
)
def test_nothing_is_read_back_where_that_costs_a_wait(monkeypatch, variant):
    scenes, found = images()
    gts, expected = pack(scenes), run(build(variant), scenes, found)
    monkeypatch.setattr(rows, 'reads_are_free', lambda device: False)
    priors = PyramidPriors(scenes[0].priors, scenes[0].sizes, strides=STRIDES)
    with ReadsBack() as mode:
        batch = build(variant).assign_batch(priors, gts, predictions=found)
    # How many priors are anybody's candidates is the one number that OTA reads.
    assert mode.found == (['nonzero'] if variant == 'OTAAssigner' else [])
    assert torch.equal(batch.assigned, expected.assigned)


def head_config(kind: str, assigner: dict, **overrides) -> ConfigDict:
    """A small head of four levels."""
    config = {
        'type': kind,
        'num_classes': CLASSES,
        'in_channels': 16,
        'feat_channels': 16,
        'stacked_convs': 1,
        'anchor_generator': {
            'type': 'AnchorGenerator',
            'ratios': [1.0],
            'octave_base_scale': 4,
            'scales_per_octave': 1,
            'strides': [8, 16, 32, 64],
        },
        'bbox_coder': {'type': 'DeltaXYWHBBoxCoder'},
        'loss_cls': {'type': 'FocalLoss', 'use_sigmoid': True},
        'loss_bbox': {'type': 'GIoULoss'},
        'train_cfg': {'assigner': assigner, 'allowed_border': -1, 'pos_weight': -1, 'debug': False},
        'test_cfg': {},
    }
    if kind != 'mmdet.RetinaHead':
        config['norm_cfg'] = {'type': 'GN', 'num_groups': 4}
        config['loss_centerness'] = {'type': 'CrossEntropyLoss', 'use_sigmoid': True}
    return ConfigDict(config | overrides)


def losses_of(head) -> dict[str, list[torch.Tensor]]:
    """Of two images, the second without a gt."""
    generator = torch.Generator().manual_seed(3)
    features = [torch.randn(2, 16, 96 // s, 128 // s, generator=generator) for s in (8, 16, 32)]
    features.append(torch.randn(2, 16, 2, 2, generator=generator))
    scene = random_scene(2, 'mixed', 10, 96, 128)
    metas = [{'img_shape': (96, 128), 'pad_shape': (96, 128)}] * 2
    empty = InstanceData(bboxes=scene.boxes[:0], labels=scene.labels[:0])
    return head.loss_by_feat(*head(features), [scene.gts, empty], metas)


def assert_learns(head) -> dict[str, list[torch.Tensor]]:
    losses = losses_of(head)
    levels = [level for values in losses.values() for level in values]
    assert all(level.isfinite().all() for level in levels)
    assert sum(losses['loss_bbox']) > 0  # there are positives
    sum(level.sum() for level in levels).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    return losses


@every_variant
def test_our_head_hosts_it(variant):
    name, arguments = VARIANTS[variant]
    torch.manual_seed(0)
    assert_learns(MODELS.build(head_config('atss_ext.ATSSHead', {'type': f'atss_ext.{name}', **arguments})))


@pytest.mark.parametrize('variant', ['ATSSAssigner', 'TopKAssigner', 'SpatialScaleAssigner'])
def test_mmdets_atss_head_hosts_it(variant):
    """With the losses that our head has."""
    name, arguments = VARIANTS[variant]
    assigner = {'type': f'atss_ext.{name}', **arguments}
    torch.manual_seed(0)
    theirs = MMDET_MODELS.build(head_config('mmdet.ATSSHead', assigner))
    ours = MODELS.build(head_config('atss_ext.ATSSHead', assigner))
    ours.load_state_dict(theirs.state_dict())
    expected, found = assert_learns(theirs), assert_learns(ours)
    torch.testing.assert_close(found, expected)


def test_mmdets_retina_head_hosts_max_iou():
    """RetinaNet with our assigner is RetinaNet with mmdet's."""
    losses = []
    for scope in ('atss_ext', 'mmdet'):
        torch.manual_seed(0)
        assigner = {'type': f'{scope}.MaxIoUAssigner', **THRESHOLDS, 'min_pos_iou': 0}
        config = head_config('mmdet.RetinaHead', assigner, reg_decoded_bbox=True)
        losses.append(assert_learns(MMDET_MODELS.build(config)))
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_mmdets_ddod_head_hosts_cost_atss():
    losses = []
    for assigner in (
        {'type': 'atss_ext.CostATSSAssigner', 'alpha': 0.8},
        {'type': 'mmdet.ATSSAssigner', 'topk': 9, 'alpha': 0.8},
    ):
        torch.manual_seed(0)
        config = head_config(
            'mmdet.DDODHead', assigner, loss_iou={'type': 'CrossEntropyLoss', 'use_sigmoid': True}
        )
        config.pop('loss_centerness')
        config.train_cfg.reg_assigner = {**assigner, 'alpha': 0.5}
        head = MMDET_MODELS.build(config)
        losses.append(losses_of(head))
        assert sum(losses[-1]['loss_bbox']) > 0
    torch.testing.assert_close(losses[0], losses[1])


@every_assigner
def test_what_it_needs_and_lacks_is_one_sentence(name):
    scenes, _ = images()
    assigner = build(name)
    if not getattr(assigner, 'needs_predictions', False):
        assert_sound(run(assigner, scenes, None), scenes)
        return
    with pytest.raises(AssignmentError, match=f'^{name} ranks priors by predicted scores and boxes'):
        run(assigner, scenes, None)


@pytest.mark.parametrize('label', [80, -1])
@every_assigner
def test_our_head_names_a_label_that_is_no_class(name, label):
    head = MODELS.build(
        head_config('atss_ext.ATSSHead', {'type': f'atss_ext.{name}', **ASSIGNERS[name]}, in_channels=1)
    )
    scene = random_scene(2, 'mixed', 5, 96, 128)
    scene.labels[3] = label
    empty = InstanceData(bboxes=scene.boxes[:0], labels=scene.labels[:0])
    outputs = head([torch.zeros(2, 1, 96 // s, 128 // s) for s in (8, 16, 32)] + [torch.zeros(2, 1, 2, 2)])
    metas = [{'img_shape': (96, 128), 'pad_shape': (96, 128)}] * 2
    with pytest.raises(AssignmentError) as caught:
        head.loss_by_feat(*outputs, [empty, scene.gts], metas)
    assert str(caught.value) == (
        f'gt 3 of image 1 of the batch has label {label}, but the head has 80 classes, 0 to 79: correct '
        'num_classes of the head or the label'
    )


DAMAGES = {'NaN score': float('nan'), 'infinite score': float('inf'), 'NaN box': float('nan'),
           'infinite box': float('inf')}  # fmt: skip


@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize('name', [name for name in ASSIGNERS if getattr(build(name), 'needs_predictions', 0)])
def test_one_prediction_that_is_no_number_costs_its_neighbours_nothing(name, damage):
    """It may lose its prior, whose gt then chooses otherwise; all others but its rivals keep theirs."""
    scenes, found = images()
    before = run(build(name), scenes, found)
    prior = int((before.assigned[2] > 0).nonzero()[0])
    scores, boxes = found.scores.clone(), found.boxes.clone()
    (scores if 'score' in damage else boxes)[2, prior] = DAMAGES[damage]
    after = run(build(name), scenes, Predictions(scores, boxes))
    assert_sound(after, scenes)
    assert torch.equal(after.assigned[[0, 1, 3]], before.assigned[[0, 1, 3]])
    others = [gt for gt in before.assigned[2].unique() if gt > 0 and gt != before.assigned[2, prior]]
    kept = [gt for gt in others if torch.equal(before.assigned[2] == gt, after.assigned[2] == gt)]
    assert len(kept) >= len(others) - 2 >= 3


@every_assigner
def test_a_mask_that_does_not_fit_is_named(name):
    scenes, found = images()
    with pytest.raises(ValueError, match=r'valid must be \[4, \d+\] \(images, priors\), got \(1, 2\)'):
        run(build(name), scenes, found, torch.ones(1, 2, dtype=torch.bool))


def test_our_head_names_ranges_that_do_not_match_its_levels():
    head = MODELS.build(head_config('atss_ext.ATSSHead', {'type': 'atss_ext.SpatialScaleAssigner'}))
    with pytest.raises(AssignmentError, match=r'has 5 regress_ranges .* but there are 4 levels'):
        losses_of(head)
