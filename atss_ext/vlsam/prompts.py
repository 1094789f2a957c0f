"""From attention maps to point prompts: the peak of the largest strong area, and the lowest point beside it.

VL-SAM's prompt sampling. Everything works on all objects at once and on the maps' device. What may be done to
the maps before stands in :mod:`~atss_ext.vlsam.prompt_maps`.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from atss_ext.vlsam.prompt_maps import (
    CONTRASTS,
    SINK_RULES,
    contrast_maps,
    normalise,
    smooth,
    suppress_sinks,
)
from atss_ext.vlsam.protocols import VlsamError

POSITIVE, NEGATIVE, NO_POINT = 1, 0, -10
POSITIONS = ('cell', 'centroid')


@dataclass(frozen=True)
class PromptOptions:
    """How points are chosen on a map.

    The paper normalises, thresholds and takes one positive and one negative point; it tells neither the
    threshold nor the connectivity.

    Args:
        threshold: cells of at least this much of the normalised map (0..1] may belong to the object. Half of
            the maximum by default: far lower, areas run together over the background; far higher (0.8 is used
            elsewhere for points alone), an area shrinks to a cell or two, and the largest is a matter of
            chance.
        positives: points on the object: its highest cell, then the next highest that keep their distance.
        negatives: points beside it: the lowest cell, then the next lowest.
        min_distance: of points of one kind from each other, in cells (Euclidean).
        connectivity: 8 counts diagonal neighbours into an area, 4 does not.
        smoothing: standard deviation, in cells, of a Gaussian over the map before all else; 0 is off.
        sinks: 'off' (the paper), or 'median': cells that draw attention whatever the object is are replaced
            by the median of their neighbours (:func:`suppress_sinks`).
        sink_ratio: how many times a map's median a cell has to reach, in every object's map, to be a sink.
        contrast: 'off' (the paper), or 'mean': areas and positive points come from each map weighed against
            the mean of the maps of all objects of the answer (:func:`contrast_maps`), negative ones still
            from the map itself, as the lowest cell of the former mostly lies on another object.
        position: where in its cell a positive point stands: in the middle ('cell', the paper), or at the
            'centroid' of the attention of the cell and its eight neighbours. Cells are coarse, and the
            highest is often one that the object's border cuts.

    Raises:
        ValueError: a value out of range.
    """

    threshold: float = 0.5
    positives: int = 1
    negatives: int = 1
    min_distance: float = 2.0
    connectivity: int = 8
    smoothing: float = 0.0
    sinks: str = 'off'
    sink_ratio: float = 10.0
    contrast: str = 'off'
    position: str = 'cell'

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        allowed = {
            'threshold': (0 < self.threshold <= 1, 'above 0 and at most 1'),
            'positives': (self.positives >= 1, 'at least 1'),
            'negatives': (self.negatives >= 0, 'at least 0'),
            'min_distance': (0 <= self.min_distance < math.inf, 'at least 0'),
            'connectivity': (self.connectivity in (4, 8), '4 or 8'),
            'smoothing': (0 <= self.smoothing < math.inf, 'at least 0'),
            'sinks': (self.sinks in SINK_RULES, f'one of {SINK_RULES}'),
            'sink_ratio': (1 < self.sink_ratio < math.inf, 'greater than 1'),
            'contrast': (self.contrast in CONTRASTS, f'one of {CONTRASTS}'),
            'position': (self.position in POSITIONS, f'one of {POSITIONS}'),
        }
        for name, (fine, rule) in allowed.items():
            if not fine:
                raise ValueError(f'{name} must be {rule}, got {getattr(self, name)!r}.')

    def for_treated_maps(self) -> 'PromptOptions':
        """The same for :attr:`PointPrompts.maps`: all that changes a map was done to them and is off."""
        return dataclasses.replace(self, smoothing=0.0, sinks='off', contrast='off')


class PointPrompts(NamedTuple):
    """Points for O objects on a grid of R rows and C columns; P = positives + negatives.

    Attributes:
        points: float32 [O, P, 2], (x, y) at the centres of cells, as fractions of the grid's width and
            height; positive ones first.
        labels: int64 [O, P]: 1 on the object, 0 beside it, -10 no point (its coordinates are 0).
        areas: bool [O, R, C], the positive area.
        contrast: float32 [O], how far the map stands out there (:func:`attention_contrast`).
        valid: bool [O], False where a map tells nothing (constant, or not finite): no point, no area, no
            contrast.
        maps: float32 [O, R, C], the normalised maps (0..1) the points were chosen on; 0 where not valid.
    """

    points: Tensor
    labels: Tensor
    areas: Tensor
    contrast: Tensor
    valid: Tensor
    maps: Tensor


def sample_points(
    maps: Tensor, options: PromptOptions | None = None, present: Tensor | None = None
) -> PointPrompts:
    """Choose points for each object from its attention map.

    Equal cells: the one of the lower index (row, then column), so that results do not depend on the device.

    Args:
        maps: [O, R, C] of any float dtype; at least one cell.
        options: default :class:`PromptOptions`.
        present: bool [R, C], False at cells that have no token (padding of a tile): they are no part of any
            area, and their values do not matter.

    Returns:
        the prompts, on the maps' device.

    Raises:
        VlsamError: the maps have no cells.
    """
    options = options or PromptOptions()
    if maps.dim() != 3 or 0 in maps.shape[1:]:
        raise VlsamError(
            f'Attention maps must be [objects, rows, columns] with one cell or more, got {tuple(maps.shape)}.'
        )
    if present is None:
        present = torch.ones(maps.shape[1:], dtype=torch.bool, device=maps.device)
    values = torch.where(present, maps.float(), 0)
    finite = values.isfinite().flatten(1).all(1)
    values = torch.where(finite[:, None, None], values, 0)
    plain, values, valid = _treat(values, present, options)
    valid = valid & finite
    above = (values >= options.threshold) & present & valid[:, None, None]
    areas = largest_component(above, values, options.connectivity)
    outside = present & ~areas & valid[:, None, None]
    picks = [
        _pick(values, areas, options.positives, options.min_distance, POSITIVE),
        _pick(-plain, outside, options.negatives, options.min_distance, NEGATIVE),
    ]
    points, labels = (torch.cat(parts, 1) for parts in zip(*picks, strict=True))
    if options.position == 'centroid':
        points = torch.where((labels == POSITIVE)[..., None], _centroids(values, points), points)
    return PointPrompts(points, labels, areas, attention_contrast(values, areas, present), valid, values)


def _treat(maps: Tensor, present: Tensor, options: PromptOptions) -> tuple[Tensor, Tensor, Tensor]:
    """All that changes maps: normalised [O, R, C] without and with contrast, and bool [O], which tell any."""
    if options.sinks == 'median':
        maps = suppress_sinks(maps, present, options.sink_ratio)
    if options.smoothing:
        maps = smooth(maps, present, options.smoothing)
    plain, valid = normalise(maps, present)
    if options.contrast == 'off':
        return plain, plain, valid
    weighed, telling = normalise(contrast_maps(maps, present), present)
    return plain, torch.where(telling[:, None, None], weighed, plain), valid


def attention_contrast(maps: Tensor, areas: Tensor, present: Tensor) -> Tensor:
    """How far each map stands out in its area: the mean inside minus the mean outside.

    One for a map that is 1 on its object and 0 elsewhere; near zero where attention is spread over the image
    and the area is an accident of the threshold.

    Args:
        maps: float32 [O, R, C], normalised.
        areas: bool [O, R, C].
        present: bool [R, C], cells that count.

    Returns:
        float32 [O], 0..1; 0 without an area.
    """
    outside = present & ~areas

    def mean(cells: Tensor) -> Tensor:
        return torch.where(cells, maps, 0).sum((1, 2)) / cells.sum((1, 2)).clamp(min=1)

    return (mean(areas) - mean(outside)).clamp(0, 1)


def _pick(
    values: Tensor, allowed: Tensor, count: int, min_distance: float, label: int
) -> tuple[Tensor, Tensor]:
    """The highest allowed cells that keep their distance: points [O, count, 2] and labels [O, count]."""
    objects, rows, columns = values.shape
    row = torch.arange(rows, device=values.device)[None, :, None]
    column = torch.arange(columns, device=values.device)[None, None, :]
    points = torch.zeros(objects, count, 2, device=values.device)
    labels = torch.full((objects, count), NO_POINT, device=values.device)
    for number in range(count):
        found = allowed.flatten(1).any(1)
        index = torch.where(allowed, values, -torch.inf).flatten(1).argmax(1)  # the first of equal ones
        y, x = (index // columns)[:, None, None], (index % columns)[:, None, None]
        centre = torch.cat([(x + 0.5) / columns, (y + 0.5) / rows], -1)[:, 0]
        points[:, number] = torch.where(found[:, None], centre, 0)
        labels[:, number] = torch.where(found, label, NO_POINT)
        distance = (row - y) ** 2 + (column - x) ** 2
        allowed = allowed & (distance >= min_distance**2) & (distance > 0)
    return points, labels


def _centroids(values: Tensor, points: Tensor) -> Tensor:
    """The centre of mass of the 3 x 3 cells around each point, fewer at borders.

    Args:
        values: [O, R, C], normalised.
        points: [O, P, 2], (x, y) at centres of cells, as fractions.

    Returns:
        [O, P, 2]; the point itself where there is no mass.
    """
    rows, columns = values.shape[1:]
    size = points.new_tensor([columns, rows])
    row = torch.arange(rows, device=values.device) + 0.5
    column = torch.arange(columns, device=values.device) + 0.5
    x, y = (points * size).split(1, -1)  # [O, P, 1]
    # Centres are half cells up to rounding: a neighbour's is one off, the next one's two.
    near = ((row - y).abs() < 1.5)[..., :, None] & ((column - x).abs() < 1.5)[..., None, :]
    mass = torch.where(near, values[:, None], 0)  # [O, P, R, C]
    total = mass.sum((2, 3))[..., None]
    centre = torch.stack([(mass.sum(2) * column).sum(2), (mass.sum(3) * row).sum(2)], -1)
    return torch.where(total > 0, centre / total / size, points)


def largest_component(masks: Tensor, values: Tensor, connectivity: int = 8) -> Tensor:
    """Each mask's connected component of most cells.

    Of components of equal size that with the greatest value is taken, then that with the lowest index.

    Args:
        masks: bool [O, R, C].
        values: float [O, R, C], finite.
        connectivity: 8 counts diagonal neighbours, 4 does not.

    Returns:
        bool [O, R, C]; empty where the mask is.
    """
    if not masks.numel():
        return masks.clone()
    mask, value = masks.flatten(1), values.flatten(1)
    label = label_components(masks, connectivity).flatten(1)
    slot = label.clamp(min=0)
    size = torch.zeros_like(label).scatter_add_(1, slot, mask.long()).gather(1, slot)
    best = mask & (size == torch.where(mask, size, 0).amax(1, keepdim=True))
    lowest = torch.full_like(value, -torch.inf)
    peak = lowest.scatter_reduce(1, slot, torch.where(mask, value, lowest), 'amax').gather(1, slot)
    best &= peak == torch.where(best, peak, lowest).amax(1, keepdim=True)
    first = best.to(torch.uint8).argmax(1, keepdim=True)
    return (best & (label == label.gather(1, first))).view_as(masks)


def label_components(masks: Tensor, connectivity: int = 8) -> Tensor:
    """Give the cells of each connected component one number.

    Every cell takes the greatest number among its neighbours, then that cell's own, until nothing changes: a
    few rounds on maps as they are. All objects at once, on the masks' device, where a library would copy them
    to the host.

    Args:
        masks: bool [O, R, C].
        connectivity: 8 or 4.

    Returns:
        int64 [O, R, C]: the greatest index (row * C + column) in each cell's component, -1 outside of the
        masks.
    """
    rows, columns = masks.shape[1:]
    own = torch.arange(rows * columns, device=masks.device).view(rows, columns)
    labels = torch.where(masks, own, -1)
    while masks.numel():
        spread = torch.where(masks, _neighbour_max(labels, connectivity), -1).flatten(1)
        spread = torch.where(masks, spread.gather(1, spread.clamp(min=0)).view_as(labels), -1)
        if torch.equal(spread, labels):
            break
        labels = spread
    return labels


def _neighbour_max(labels: Tensor, connectivity: int) -> Tensor:
    """The greatest label [O, R, C] in each cell's neighbourhood, itself included."""
    values = labels.double()[:, None]  # pooling takes floats; these hold every index
    if connectivity == 8:
        return F.max_pool2d(values, 3, 1, 1)[:, 0].long()
    vertical = F.max_pool2d(values, (3, 1), 1, (1, 0))
    horizontal = F.max_pool2d(values, (1, 3), 1, (0, 1))
    return torch.maximum(vertical, horizontal)[:, 0].long()
