"""What may be done to attention maps before points are chosen on them: nothing of it is the paper's."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SINK_RULES = ('off', 'median')
CONTRASTS = ('off', 'mean')
# A map whose values differ less, relative to the greatest, is constant but for what float32 rounds.
_FLAT = 1e-5


def normalise(maps: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch each map to 0..1.

    A grid of a single cell has nothing to stretch; its map is 1 where there is any attention.

    Args:
        maps: float32 [O, R, C], finite.
        present: bool [R, C], cells that count.

    Returns:
        maps [O, R, C], 0 at cells that do not count and in maps that tell nothing; and bool [O], whether a
        map tells anything.
    """
    low = torch.where(present, maps, torch.inf).amin((1, 2))
    high = torch.where(present, maps, -torch.inf).amax((1, 2))
    single = present.sum() == 1
    low = torch.where(single, 0, low)
    span = high - low
    valid = (span > _FLAT * torch.maximum(low.abs(), high.abs())) & present.any()
    kept = present & valid[:, None, None]
    scaled = (maps - low[:, None, None]) / torch.where(valid, span, 1)[:, None, None]
    return torch.where(kept, scaled.clamp(0, 1), 0), valid


def contrast_maps(maps: Tensor, present: Tensor) -> Tensor:
    """Weigh each map against the mean of all: its own attention times what it has more of than the others.

    With u_i the map of object i as shares of its sum, the result is u_i * u_i / mean_j u_j. The second factor
    is relative attention, that of "MLLMs Know Where to Look" (arXiv 2502.17422), which divides by the map of
    a generic question; here what the objects of one answer have in common is the reference, at no cost. The
    ratio alone is greatest where no object has much attention, hence the first factor. Differences from the
    mean would be negative or, clipped, tie at 0 and leave nothing of two objects at one place; this leaves
    equal maps, and that of a single object, as they are. ``docs/prompt_study.md`` has figures.

    Maps that tell nothing (:func:`normalise`) have no say. The order of the objects does not change a bit of
    the result.

    Args:
        maps: float32 [O, R, C], finite; below zero counts as zero.
        present: bool [R, C], cells that count.

    Returns:
        float32 [O, R, C], not negative; 0 at cells that do not count and in maps that tell nothing.
    """
    telling = normalise(maps, present)[1]
    weights = torch.where(present & telling[:, None, None], maps.clamp(min=0), 0)
    top = weights.flatten(1).amax(1)[:, None, None]
    weights = weights / torch.where(top > 0, top, 1)  # else a sum may overflow or vanish
    total = weights.sum((1, 2), keepdim=True)
    shares = weights / torch.where(total > 0, total, 1)
    # Sorted, as a sum of floats depends on their order.
    mean = shares[telling].sort(0).values.sum(0) / telling.sum().clamp(min=1)
    return torch.where(mean > 0, shares * shares / torch.where(mean > 0, mean, 1), 0)


def suppress_sinks(maps: Tensor, present: Tensor, ratio: float) -> Tensor:
    """Take out visual attention sinks: cells that draw attention whatever the object is.

    A sink reaches ``ratio`` times the median of its map in every map there is. The least share over the
    objects decides rather than the mean, in which a single sharp object would be an outlier too. At least two
    maps that tell something are needed, else all stay as they are. Two objects at one place cannot be told
    from a sink.

    Args:
        maps: float32 [O, R, C], not negative, finite.
        present: bool [R, C], cells that count.
        ratio: above 1.

    Returns:
        float32 [O, R, C]; sinks hold the (lower) median of their neighbours that are none, or where all are
        sinks, that of the map.
    """
    cells = torch.where(present, maps, torch.nan)
    telling = normalise(maps, present)[1]
    if int(telling.sum()) < 2:
        return maps
    median = cells.flatten(1).nanmedian(1).values
    # Half of the cells without any attention: their mean has to do.
    median = torch.where(median > 0, median, cells.flatten(1).nanmean(1))
    above = cells > ratio * median[:, None, None]
    sinks = above[telling].all(0)
    sound = torch.where(sinks, torch.nan, cells)
    padded = F.pad(sound, (1, 1, 1, 1), value=torch.nan)[:, None]
    around = F.unfold(padded, 3).view(
        len(maps), 9, *maps.shape[1:]
    )  # the cell itself is NaN where it matters
    replacement = around.nanmedian(1).values
    whole = sound.flatten(1).nanmedian(1).values.nan_to_num(0)
    replacement = torch.where(replacement.isnan(), whole[:, None, None], replacement)
    return torch.where(sinks & telling[:, None, None], replacement, maps)


def smooth(maps: Tensor, present: Tensor, sigma: float) -> Tensor:
    """Gaussian blur over the cells that count; at borders over those there are.

    Args:
        maps: float32 [O, R, C], finite, 0 at cells that do not count.
        present: bool [R, C], cells that count.
        sigma: standard deviation in cells, above 0.

    Returns:
        float32 [O, R, C].
    """
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, device=maps.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)

    def blur(values: Tensor) -> Tensor:
        across = F.conv2d(values[:, None], kernel.view(1, 1, 1, -1), padding=(0, reach))
        return F.conv2d(across, kernel.view(1, 1, -1, 1), padding=(reach, 0))[:, 0]

    weight = blur(present.float()[None])
    return torch.where(present, blur(maps) / weight.clamp(min=1e-12), 0)
