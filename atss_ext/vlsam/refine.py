"""Iterative refinement: the segmenter's own mask, and points drawn again inside of it."""

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from atss_ext.vlsam.protocols import Embedding, Segmentation, Segmenter
from atss_ext.vlsam.segmenter.masks import objects_at_once

# Maps [O, R, C] over the whole image -> points [O, P, 2] in pixels of the image, labels [O, P].
Sample = Callable[[Tensor], tuple[Tensor, Tensor]]


def refine(
    segmenter: Segmenter,
    embedding: Embedding,
    points: Tensor,
    labels: Tensor,
    maps: Tensor,
    sample: Sample,
    feedback: int = 1,
    resample: int = 1,
    multimask: bool = True,
    keep: str = 'all',
) -> list[Segmentation]:
    """Segment O objects and refine their masks ("iterative refinement" of VL-SAM, arXiv 2410.05963).

    (a) The first mask's low-resolution logits go back to the decoder with the same points, ``feedback``
    times. (b) What lies outside of the mask found so far is taken out of the attention map, points are drawn
    from what is left and segmented without a mask prompt, ``resample`` times; each time it is the map as
    given that is masked, not the one masked before. An object keeps its mask where nothing of its map lies
    within it, or where ``sample`` finds no positive point in that. The paper does not say whether (b) follows
    on (a) or stands beside it: here it does follow, the better mask being the better place for points.

    Everything is held for the O objects at once; call it for a few at a time.

    Args:
        segmenter: what turns points into masks.
        embedding: of the image, by the segmenter.
        points: float32 [O, P, 2], (x, y) in pixels of the image.
        labels: int64 [O, P]: 1 on the object, 0 beside it, -10 no point.
        maps: float [O, R, C], attention of each object over the whole image, not negative.
        sample: draws points from maps; the number of points may differ from P. It is called with the maps of
            the objects that have one left only.
        feedback: rounds of (a); 0 leaves it out.
        resample: rounds of (b); 0 leaves it out.
        multimask: of the segmenter, in every stage.
        keep: 'all' stages, candidates for the NMS that follows, or only the 'last'.

    Returns:
        1 + ``feedback`` + ``resample`` segmentations in that order (or the last of them), each of all O
        objects in their order.

    Raises:
        ValueError: a negative number of rounds, an unknown ``keep``, or not a map for each object.
        VlsamError: from the segmenter.
    """
    for name, rounds in (('feedback', feedback), ('resample', resample)):
        if rounds < 0:
            raise ValueError(f'{name} is {rounds}; 0 leaves the step out.')
    if keep not in ('all', 'last'):
        raise ValueError(f"keep is {keep!r}; it takes 'all' or 'last'.")
    if maps.ndim != 3 or len(maps) != len(points):
        raise ValueError(f'maps has the shape {list(maps.shape)}; {len(points)} objects need [O, R, C].')

    def stages() -> Iterator[Segmentation]:
        found = segmenter.segment(embedding, points, labels, multimask=multimask)
        yield found
        for _ in range(feedback):
            found = segmenter.segment(
                embedding, points, labels, mask_logits=found.mask_logits, multimask=multimask
            )
            yield found
        for _ in range(resample):
            found = _resample(segmenter, embedding, found, maps, sample, multimask)
            yield found

    return list(stages() if keep == 'all' else deque(stages(), maxlen=1))


def _resample(
    segmenter: Segmenter,
    embedding: Embedding,
    found: Segmentation,
    maps: Tensor,
    sample: Sample,
    multimask: bool,
) -> Segmentation:
    """One round of step (b)."""
    inside = maps * mask_cells(found.masks, (maps.shape[1], maps.shape[2])).to(maps.device)
    live = (inside > 0).flatten(1).any(1).nonzero()[:, 0]
    if not len(live):
        return found
    points, labels = sample(inside[live])
    usable = (labels == 1).any(1)
    live = live[usable.to(live.device)]
    if not len(live):
        return found
    fresh = segmenter.segment(embedding, points[usable], labels[usable], multimask=multimask)
    live = live.to(found.masks.device)
    # index_copy gives new tensors: the earlier stage is a candidate of its own.
    return Segmentation(*(old.index_copy(0, live, new) for old, new in zip(found, fresh, strict=True)))


def mask_cells(masks: Tensor, shape: tuple[int, int]) -> Tensor:
    """The cells of a coarse grid that masks fill.

    These are the cells covered by half at least. A mask too small or too thin for any such cell keeps those
    it covers at least half as well as the one it covers best, so that only an empty mask has none.

    Args:
        masks: bool [O, H, W].
        shape: (R, C) of the grid over the same image; cells need not be whole pixels.

    Returns:
        bool [O, R, C].
    """
    covered = area_average(masks, shape)
    best = covered.flatten(1).amax(1)[:, None, None] if covered.numel() else covered
    return (covered > 0) & (covered >= (best / 2).where(best < 0.5, 0.5))


def area_average(masks: Tensor, shape: tuple[int, int]) -> Tensor:
    """The share of each cell of a coarse grid that masks cover, exactly also where cells cut pixels.

    Args:
        masks: bool [O, H, W].
        shape: (R, C) of the grid over the same image.

    Returns:
        float32 [O, R, C], 0..1.
    """
    height, width = masks.shape[-2:]
    rows = _overlaps(shape[0], height, masks.device)
    columns = _overlaps(shape[1], width, masks.device).T
    # Pixels are counted in units of a cell's 1 / (R C): whole numbers, so that a half is a half.
    parts = [rows @ part.float() @ columns for part in masks.split(objects_at_once(height * width))]
    return torch.cat(parts) / (height * width)


def _overlaps(cells: int, pixels: int, device: torch.device) -> Tensor:
    """[cells, pixels], how much of each pixel lies in each cell, in units of 1 / cells of a pixel."""
    cell = torch.arange(cells, device=device)[:, None] * pixels
    pixel = torch.arange(pixels, device=device) * cells
    shared = torch.minimum(cell + pixels, pixel + cells) - torch.maximum(cell, pixel)
    return shared.clamp(min=0).float()
