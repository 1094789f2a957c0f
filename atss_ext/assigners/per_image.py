"""What the heads of mmdet hand to an assigner for one image, read as a batch of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from atss_ext.assigners.base import AssignmentError, PackedGts, Predictions, PyramidPriors
from atss_ext.assigners.dynamic_k import points_of
from atss_ext.assigners.prior_forms import (
    are_points,
    boxes_of_points,
    levels_of_boxes,
    levels_of_points,
    strides_of_boxes,
    strides_of_points,
)
from atss_ext.ops.reference import box_centers
from atss_ext.ops.reference.boxes import compute_dtype

# Keeps the logit of a probability of 0 or 1 finite.
_PROBABILITY_EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class ImageCall:
    """One image of a head of mmdet.

    Attributes:
        priors: boxes with the sizes of their levels; with strides where the head gave points.
        gts: of the batch of one.
        gt_instances: the same as the head gave them.
        predictions: of a batch of one; None where the head gave none, or the assigner does not use them.
        points: [N, 4] (centre x, centre y, stride x, stride y), as the head gave them, or None.
        alpha: TOODHead's exponent of the score, None of other heads.
        beta: TOODHead's exponent of the IoU, likewise.
        wants_centerness: whether the call is that of ATSSHead and TOODHead's first epochs, which take the
            centerness of positives. VFNetHead, which does not, calls alike.
    """

    priors: PyramidPriors
    gts: PackedGts
    gt_instances: InstanceData
    predictions: Predictions | None = None
    points: Tensor | None = None
    alpha: float | None = None
    beta: float | None = None
    wants_centerness: bool = False


@dataclass(frozen=True)
class _Arguments:
    """What follows ``pred_instances`` in the call of a head."""

    gts: InstanceData
    ignored: InstanceData | None
    level_sizes: list[int] | None
    alpha: float | None
    beta: float | None
    gts_by_name: bool


def read_call(
    assigner: object,
    pred_instances: InstanceData,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    by_level: bool = False,
    by_location: bool = False,
    expect_points: bool = False,
    expect_logits: bool = False,
) -> ImageCall:
    """Reads any call that the dense heads of mmdet make of their assigner.

    ========================================  ==============================================  ===========
    head                                      call                                            scores
    ========================================  ==============================================  ===========
    RetinaHead and other anchor heads         ``(pred, gts, ignored)``                        none
    ATSSHead, TOODHead's initial assigner     ``(pred, num_level_priors, gts, ignored)``      none
    GFLHead                                   the same by name                                none
    DDODHead                                  the same by name                                logits
    TOODHead                                  ``(pred, gts, ignored, alpha, beta)``           probability
    YOLOXHead (points)                        ``(pred, gts, ignored)`` by name                probability
    RTMDetHead (points)                       ``(pred, gts, ignored)``                        logits
    ========================================  ==============================================  ===========

    - Arguments are told apart by type: counts of levels are a list or tuple, gts an ``InstanceData``.
    - Points (centre and stride) are told from boxes by :func:`~atss_ext.assigners.prior_forms.are_points`.
      An assigner of boxes is given squares of 8 strides around them.
    - Levels that are not counted are found by
      :func:`~atss_ext.assigners.prior_forms.levels_of_boxes`, where the assigner goes by levels.
    - Scores beyond 0 to 1 are logits. Others are probabilities, but where ``expect_logits`` and the call is
      not that of a head of the table whose scores are probabilities.

    Args:
        assigner: who reads, for sentences.
        pred_instances: with ``priors`` [N, 4], tensor or boxes; ``scores`` [N, C] and ``bboxes`` [N, 4] xyxy
            where the head predicts before it assigns.
        args: of the call, without ``pred_instances``.
        kwargs: of the call by name: ``num_level_priors``, ``gt_instances``, ``gt_instances_ignore``,
            ``alpha``, ``beta``; others are without effect, as in mmdet.
        by_level: whether the assigner goes by levels, or by strides that are to be found level by level;
            otherwise all priors may count as one.
        by_location: whether it asks how many anchors a location has.
        expect_points: whether the head that the assigner was made for gives points.
        expect_logits: whether the scores of that head are logits.

    Raises:
        AssignmentError: for a call that is none of these, bad gts, or levels that cannot be told.
        ValueError: for counts of levels that do not sum to N.
    """
    arguments = _read_arguments(assigner, args, kwargs)
    given = pred_instances.priors
    rows = get_box_tensor(given)[:, :4]
    points = None
    # No head of points counts levels.
    if isinstance(given, Tensor) and arguments.level_sizes is None and are_points(rows, expect_points):
        points = rows
        # One that knows points looks at nothing else of them.
        priors = _priors_of_points(points, by_level and not expect_points)
    else:
        priors = _priors_of_boxes(rows, arguments.level_sizes, by_level)
        if by_location and len(priors):
            priors = replace(priors, per_location=anchors_per_location(rows, priors.level_sizes))
    ignored = None if arguments.ignored is None else [arguments.ignored]
    return ImageCall(
        priors,
        PackedGts.from_instances([arguments.gts], ignored),
        arguments.gts,
        # Whoever does not use them shall not wait for a GPU to have made them.
        _predictions(pred_instances, arguments, expect_logits) if _needs_predictions(assigner) else None,
        points,
        arguments.alpha,
        arguments.beta,
        arguments.level_sizes is not None and 'num_level_priors' not in kwargs,
    )


def as_logits(found: Predictions) -> Predictions:
    """The same with logits as scores, for an assigner that knows no others."""
    if found.are_logits:
        return found
    scores = found.scores.to(compute_dtype(found.scores.dtype)).logit(_PROBABILITY_EPS)
    return Predictions(scores, found.boxes)


def call_points(assigner: object, call: ImageCall) -> Tensor:
    """Centre and stride of every prior of a call, [N, 4]: those given, or of anchors what their grid shows.

    Raises:
        AssignmentError: where the strides of anchors cannot be told.
    """
    if call.points is not None:
        return call.points
    strides = strides_of_boxes(call.priors.boxes, call.priors.level_sizes)
    return points_of(assigner, replace(call.priors, strides=strides))


def _read_arguments(assigner: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Arguments:
    """Tells the arguments of a call apart.

    Raises:
        AssignmentError: where gts or ignored gts are missing or something else.
        TypeError: for an argument that is given twice.
    """
    named, rest = dict(kwargs), list(args)
    if rest and isinstance(rest[0], list | tuple):
        rest, named = rest[1:], _with(named, 'num_level_priors', rest[0])
    for name, value in zip(('gt_instances', 'gt_instances_ignore', 'alpha', 'beta'), rest, strict=False):
        named = _with(named, name, value)
    gts, ignored = named.get('gt_instances'), named.get('gt_instances_ignore')
    sizes = named.get('num_level_priors')
    if not isinstance(gts, InstanceData) or not isinstance(ignored, InstanceData | None):
        kinds = ', '.join(f'{name}: {type(value).__name__}' for name, value in named.items()) or 'nothing'
        raise AssignmentError(
            f'{type(assigner).__name__} takes gts and ignored gts as InstanceData, after num_level_priors '
            f'where a head counts them, but was called with {kinds}: use a head that calls its assigner as '
            'RetinaHead, ATSSHead, TOODHead, YOLOXHead or RTMDetHead does'
        )
    return _Arguments(
        gts,
        ignored,
        None if sizes is None else [int(size) for size in sizes],
        named.get('alpha'),
        named.get('beta'),
        'gt_instances' in kwargs,
    )


def _needs_predictions(assigner: object) -> bool:
    return getattr(assigner, 'needs_predictions', False)


def _with(named: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """``named`` and one more."""
    if name in named:
        raise TypeError(f"assign() got multiple values for argument '{name}'")
    return {**named, name: value}


def _priors_of_points(points: Tensor, by_level: bool) -> PyramidPriors:
    boxes = boxes_of_points(points)
    if not by_level:
        return PyramidPriors(boxes, [len(points)])
    level_sizes = levels_of_points(points)
    return PyramidPriors(boxes, level_sizes, strides=strides_of_points(points, level_sizes))


def _priors_of_boxes(boxes: Tensor, level_sizes: list[int] | None, by_level: bool) -> PyramidPriors:
    if level_sizes is None:
        level_sizes = levels_of_boxes(boxes) if by_level else [len(boxes)]
    return PyramidPriors(boxes, level_sizes)


def _predictions(
    pred_instances: InstanceData, arguments: _Arguments, expect_logits: bool
) -> Predictions | None:
    """Scores and boxes of one image as those of a batch of one; None where the head gives none."""
    if 'scores' not in pred_instances or 'bboxes' not in pred_instances:
        return None
    scores = pred_instances.scores
    # As YOLOXHead and TOODHead call.
    by_probability = arguments.level_sizes is None and (arguments.gts_by_name or arguments.alpha is not None)
    are_logits = expect_logits and not by_probability
    if not are_logits:
        are_logits = bool((scores < 0).any() or (scores > 1).any())
    return Predictions(scores[None], get_box_tensor(pred_instances.bboxes)[None], are_logits)


def anchors_per_location(priors: Tensor, level_sizes: Sequence[int]) -> int:
    """How many priors of a level share a centre: the longest run of neighbours that do.

    mmdet's call does not say, and with ``allowed_border`` its heads have already left out some anchors of
    the locations near a border. Priors of one location are neighbours in mmdet's order; their centres agree
    up to rounding.
    """
    boxes = priors.float()
    centers = box_centers(boxes)
    room = 1e-3 * (boxes[1:, 2:] - boxes[1:, :2]).amax(1).clamp(min=1)
    breaks = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    breaks[1:] = (centers[1:] - centers[:-1]).abs().amax(1) >= room
    starts = torch.tensor([0, *level_sizes]).cumsum(0)[:-1]
    breaks[starts[starts < len(boxes)].to(boxes.device)] = True
    return int(breaks.cumsum(0).bincount().max())
