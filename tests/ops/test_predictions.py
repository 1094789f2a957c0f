"""Ops of assigners that go by predictions: native against the reference, and what they refuse."""

from dataclasses import replace

import pytest
import torch
from predicted_samples import predicted_case, prediction_samples
from samples import assert_identical, random_mask

from atss_ext import ops
from atss_ext.ops import reference
from atss_ext.ops.reference import dynamic_k, predictions


def aligned(case, module=ops, **changes):
    names = ('priors', 'scores', 'boxes', 'gt_boxes', 'gt_labels', 'offsets', 'valid')
    return module.task_aligned_assign(**{**{name: getattr(case, name) for name in names}, **changes})


def dynamic(case, rule='sim_ota', module=ops, **changes):
    names = ('points', 'scores', 'boxes', 'gt_boxes', 'gt_labels', 'offsets', 'valid')
    numbers = {'topk': 10, 'radius': 2.5} if rule == 'sim_ota' else {'topk': 13, 'radius': 3.0}
    arguments = {name: getattr(case, name) for name in names}
    return module.dynamic_k_assign(**{**arguments, 'rule': rule, **numbers, **changes})


def case_of(seed: int):
    counts = [(5, 0, 12), (1,), (0, 0, 3), (40,), (3, 3)][seed % 5]
    case = predicted_case(counts, seed=seed, classes=1 + seed % 9)
    if seed % 3 == 0:
        case = replace(case, valid=random_mask(len(counts), len(case.priors), 0.5, seed))
    return case.to(torch.float64)  # float32's rounding decides too often; tests of the assigners have it


@pytest.mark.parametrize('seed', range(20))
def test_aligned_equals_reference(seed):
    case = case_of(seed)
    for changes in ({}, {'topk': 3, 'alpha': 0.5, 'beta': 2.0}, {'topk': 10**4, 'alpha': 0.0, 'beta': 1e-3}):
        ours, theirs = aligned(case, **changes), aligned(case, reference, **changes)
        assert_identical(ours[:2], theirs[:2])
        torch.testing.assert_close(ours.metrics, theirs.metrics, rtol=1e-14, atol=0)
        assert len(case.gt_boxes) < 10 or (ours.assigned > 0).any()


@pytest.mark.parametrize('seed', range(20))
def test_dynamic_equals_reference(seed):
    case = case_of(seed)
    centers = case.gt_boxes[:, :2] * 0.3 + case.gt_boxes[:, 2:] * 0.7
    probabilities = replace(case, scores=case.scores.sigmoid())
    for one, rule, changes in (
        (case, 'sim_ota', {}),
        (probabilities, 'sim_ota', {'are_logits': False}),
        (replace(case, scores=case.scores.sign() * 800), 'sim_ota', {'radius': 1.0}),
        (case, 'sim_ota', {'iou_weight': 0.0, 'radius': 0.25}),
        (case, 'soft_label', {}),
        (case, 'soft_label', {'gt_centers': centers, 'topk': 10**4, 'radius': 0.5}),
    ):
        ours = dynamic(one, rule, **changes)
        assert_identical(ours, dynamic(one, rule, reference, **changes))
        assert len(case.gt_boxes) < 10 or (ours.assigned > 0).any()


def test_the_block_of_the_reference_does_not_matter(monkeypatch):
    case = case_of(5)
    whole = aligned(case, reference), *(dynamic(case, r, reference) for r in ('sim_ota', 'soft_label'))
    for module in (predictions, dynamic_k):
        monkeypatch.setattr(module, 'CHUNK', 1000)
    for ours, theirs in zip(
        (aligned(case, reference), *(dynamic(case, r, reference) for r in ('sim_ota', 'soft_label'))),
        whole,
        strict=True,
    ):
        assert_identical(ours, theirs)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(dtype, route):
    case = predicted_case().to(dtype)
    assert_identical(aligned(case), aligned(case.to(torch.float32)))
    for rule in ('sim_ota', 'soft_label'):
        assert_identical(dynamic(case, rule), dynamic(case.to(torch.float32), rule))


def test_what_is_no_number_is_never_assigned(route):
    case = predicted_case()
    clean = [aligned(case), dynamic(case), dynamic(case, 'soft_label')]
    taken = [int((result.assigned[2] > 0).nonzero()[0, 0]) for result in clean]
    for place in set(taken):
        scores, boxes = case.scores.clone(), case.boxes.clone()
        scores[2, place] = float('nan')
        boxes[0, :] = float('nan')
        broken = replace(case, scores=scores, boxes=boxes)
        results = [aligned(broken), dynamic(broken), dynamic(broken, 'soft_label')]
        for result in results:
            assert result.assigned[2, place] == 0
            assert (result.assigned[2] > 0).any()
            assert (result.assigned[0] == 0).all()
            assert result.ious.isfinite().all()


def test_probabilities_count_as_the_nearest_of_the_unit_interval(route):
    case = predicted_case()
    inside = case.scores.clamp(0, 1)
    for function in (aligned, dynamic):
        beyond = function(case, are_logits=False)
        assert_identical(beyond, function(replace(case, scores=inside), are_logits=False))


def test_no_class_axis_and_no_batch_of_rows(monkeypatch):
    """Fallback: the largest tensor that is made has a block of values, whatever B, T and C."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for one in result if isinstance(result, tuple | list) else (result,):
                if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() != given:
                    self.numel = max(self.numel, one.untyped_storage().nbytes() // one.element_size())
            return result

    for module in (predictions, dynamic_k):
        monkeypatch.setattr(module, 'CHUNK', 4000)
    case = predicted_case((20, 30, 10), classes=90)
    given = case.scores.untyped_storage().data_ptr()
    rows = 4000 // len(case.priors) * len(case.priors) * 4  # a block of boxes
    for call in (lambda: aligned(case, reference), lambda: dynamic(case, module=reference)):
        with Largest() as largest:
            call()
        assert 0 < largest.numel <= max(rows, 60 * 13 * 4, case.boxes.numel())
        assert largest.numel < case.scores.numel() / 4


def test_results_carry_no_gradient(route):
    case = predicted_case()
    learned = replace(case, scores=case.scores.requires_grad_(), boxes=case.boxes.requires_grad_())
    for result in (*aligned(learned), *dynamic(learned)):
        assert not result.requires_grad


@pytest.mark.parametrize('sample', prediction_samples('random'), ids=str)
def test_compiles_into_one_graph(sample):
    op = getattr(torch.ops.atss_ext, sample.op)

    def step(*args):
        return tuple(one * 1 for one in op(*args))

    compiled = torch.compile(step, fullgraph=True, backend='eager')
    assert_identical(compiled(*sample.args), sample())


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'scores': torch.zeros(3, 9, 7)}, r'scores must be floats \[3, 345, C\] .*, got Float \[3, 9, 7\]'),
        ({'scores': torch.zeros(3, 345, 0)}, r'got Float \[3, 345, 0\]'),
        ({'scores': torch.zeros(3, 345, 7).long()}, r'got Long \[3, 345, 7\]'),
        ({'boxes': torch.zeros(345, 4)}, r'boxes must be floats \[3, 345, 4\] .*, got Float \[345, 4\]'),
        ({'gt_labels': torch.zeros(4).long()}, r'gt_labels must be int64 \[17\], got Long \[4\]'),
        ({'gt_labels': torch.full((17,), 7)}, 'gt_labels must lie in 0 to 6, the classes .*, got 7'),
        ({'offsets': torch.tensor([0, 5, 5, 9])}, 'offsets must run from 0 to 17'),
        ({'valid': torch.ones(3, 9).bool()}, r'valid must be bool \[3, 345\]'),
        ({'topk': 0}, 'topk must be at least 1, got 0'),
    ],
)
def test_bad_arguments_are_named(change, sentence, route):
    case = predicted_case()
    for function in (aligned, dynamic):
        with pytest.raises(ValueError, match=sentence):
            function(case, **change)


def test_bad_numbers_are_named(route):
    case = predicted_case()
    for change in ({'alpha': -1.0}, {'beta': 0.0}, {'beta': float('nan')}):
        with pytest.raises(ValueError, match='alpha must be at least 0 and beta above 0, got'):
            aligned(case, **change)
    with pytest.raises(ValueError, match='radius and weights must not be negative, got -1, 3 and 1'):
        dynamic(case, radius=-1.0)
    with pytest.raises(ValueError, match="rule must be sim_ota or soft_label, got 'ota'"):
        dynamic(case, 'ota')
    with pytest.raises(ValueError, match='soft_label needs logits, not probabilities'):
        dynamic(case, 'soft_label', are_logits=False)
    with pytest.raises(ValueError, match=r'gt_centers must be floats \[17, 2\], got Float \[4, 2\]'):
        dynamic(case, 'soft_label', gt_centers=torch.zeros(4, 2))
