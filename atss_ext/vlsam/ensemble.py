"""VL-SAM's ensembles: corner views, many questions, and the suppression that merges what they propose."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as rle
from torch import Tensor
from torchvision.ops import nms

from atss_ext.vlsam.protocols import Image, VisionLanguageModel

DEFAULT_QUESTIONS = (
    'List all objects in this image, separated by commas.',
    'Describe the scene and name every object you can see.',
    'What objects are in this picture? Give their names as a list.',
    'Name everything visible in the image, from the largest thing to the smallest.',
    'Which people, animals, vehicles and other objects does the image show? List them.',
    'Look at the foreground and the background: list the objects in each.',
    'Identify every distinct object in this image, including small or partly hidden ones.',
    'Make an inventory of this scene: list each item you see.',
    'What would you point out to somebody who cannot see this picture? Name all the objects.',
    'Go through the image from left to right and list every object on the way.',
)
# A line of an answer that asks for something.
_ASKS = re.compile(
    r'.+\?.*|(?:please )?(?:list|name|describe|identify|enumerate|mention|tell|give|write|point|report|state|'
    r'find|look|go|make|detail|catalog|catalogue|count|provide|note|scan|examine)\b.+',
    re.IGNORECASE,
)
# What lists and markup put in front of a line: "1.", "- ", "**Q2:**".
_MARKER = re.compile(r'^[^\w("]*(?:\(?\d{1,3}[.):]|(?:question|q)\s*\d{0,3}[.):])?[^\w("]*', re.IGNORECASE)
_LONGEST_QUESTION = 300

_BY = ('box', 'mask')
Coordinates = TypeVar('Coordinates', NDArray[Any], Tensor)


class View(NamedTuple):
    """A part of an image that is looked at by itself.

    Attributes:
        box: (x1, y1, x2, y2), whole pixels of the image; x2 and y2 one past the last.
        name: 'whole', 'top left', 'top right', 'bottom left' or 'bottom right'.
    """

    box: tuple[int, int, int, int]
    name: str


def views(height: int, width: int, corners: bool = True, min_side: int = 16) -> list[View]:
    """The whole image and its four corners ("multi-scale ensemble": H/2 x W/2 each).

    Odd sides are rounded up, so that every pixel lies in a corner.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        corners: whether to take them.
        min_side: corners of a shorter side are left out, all four.

    Returns:
        one view, or five.

    Raises:
        ValueError: an image without pixels.
    """
    if height < 1 or width < 1:
        raise ValueError(f'An image of {height} x {width} pixels has no views.')
    whole = View((0, 0, width, height), 'whole')
    half_height, half_width = -(-height // 2), -(-width // 2)
    # A side of one pixel has no halves: its corners would be the image itself.
    if not corners or min(half_height, half_width) < min_side or min(height, width) < 2:
        return [whole]
    rows = (('top', 0, half_height), ('bottom', height - half_height, height))
    columns = (('left', 0, half_width), ('right', width - half_width, width))
    return [whole] + [
        View((x1, y1, x2, y2), f'{vertical} {horizontal}')
        for vertical, y1, y2 in rows
        for horizontal, x1, x2 in columns
    ]


def place(coordinates: Coordinates, view: View) -> Coordinates:
    """Move points (x, y) or boxes (x1, y1, x2, y2) of a view to where they lie in the image.

    Args:
        coordinates: numpy or torch [..., 2] or [..., 4], pixels of the view.
        view: they were found in.

    Returns:
        a new array of the same kind, pixels of the image.

    Raises:
        ValueError: neither points nor boxes.
    """
    last = coordinates.shape[-1] if coordinates.ndim else 0
    if last not in (2, 4):
        raise ValueError(f'Points [..., 2] or boxes [..., 4] can be placed, got {tuple(coordinates.shape)}.')
    offset = list(view.box[:2]) * (last // 2)
    if isinstance(coordinates, Tensor):
        return coordinates + coordinates.new_tensor(offset)
    return coordinates + np.asarray(offset, coordinates.dtype)


def write_questions(vlm: VisionLanguageModel, image: Image, count: int = 10, seed: int = 0) -> list[str]:
    """Let the VLM write the questions of the question ensemble.

    What it writes is read line by line; lines that ask nothing are left out, and so are repetitions. Where it
    writes too few, :data:`DEFAULT_QUESTIONS` fill up.

    Args:
        vlm: the model.
        image: what they will be asked about.
        count: questions wanted.
        seed: of its sampling.

    Returns:
        ``count`` different questions; fewer only where the model's own and the ten defaults are fewer.

    Raises:
        ValueError: ``count`` is less than one.
        VlsamError: an image the model cannot take.
    """
    if count < 1:
        raise ValueError(f'count must be at least 1, got {count}.')
    request = (
        f'Write {count} different questions or instructions that ask for a list of all objects in this '
        'image. Put each on a line of its own, and write nothing else.'
    )
    answer = vlm.answer([image], [request], [seed])[0]
    questions: dict[str, str] = {}
    written = answer.text.splitlines()
    if not answer.finished:
        written = written[:-1]  # cut off in the middle
    for line in [*written, *DEFAULT_QUESTIONS]:
        question = _MARKER.sub('', line.strip()).strip(' \t"\'*_`“”')
        if len(question) <= _LONGEST_QUESTION and _ASKS.fullmatch(question) and not question.endswith(':'):
            questions.setdefault(''.join(filter(str.isalnum, question.casefold())), question)
    return list(questions.values())[:count]


@dataclass(frozen=True)
class MergeOptions:
    """How proposals of all views, questions and refinements become objects.

    The paper says NMS and no more.

    Args:
        iou_threshold: a proposal that overlaps a better one by more than this is dropped. 0.7 is what SAM's
            own automatic mask generator takes for boxes.
        by: 'box' or 'mask': what the overlap is measured on.
        class_agnostic: whatever they are called, overlapping proposals are one object ("man", "person");
            False merges equal names alone.
        max_detections: objects kept at most, the best; None keeps all.

    Raises:
        ValueError: a value out of range.
    """

    iou_threshold: float = 0.7
    by: str = 'box'
    class_agnostic: bool = True
    max_detections: int | None = None

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if not 0 <= self.iou_threshold <= 1:
            raise ValueError(f'iou_threshold must be 0 to 1, got {self.iou_threshold}.')
        if self.by not in _BY:
            raise ValueError(f'by must be one of {_BY}, got {self.by!r}.')
        if self.max_detections is not None and self.max_detections < 1:
            raise ValueError(f'max_detections must be at least 1 or None, got {self.max_detections}.')


def merge(
    boxes: ArrayLike | Tensor,
    scores: ArrayLike | Tensor,
    names: Sequence[str],
    run_lengths: Sequence[Mapping[str, Any]] | None = None,
    options: MergeOptions | None = None,
) -> NDArray[np.int64]:
    """Suppress proposals that overlap a better one (greedy NMS).

    The result does not depend on the proposals' order: equal scores are ordered by box, then name, then mask.

    Args:
        boxes: [P, 4] xyxy, pixels of the image.
        scores: [P].
        names: P names.
        run_lengths: P masks as COCO run lengths, all of the image's size; needed where masks are compared.
        options: default :class:`MergeOptions`.

    Returns:
        int64 indices of those kept, best first.

    Raises:
        ValueError: lengths that differ, numbers that are not finite, masks missing or of different sizes.
    """
    options = options or MergeOptions()
    corners, values = _array(boxes).reshape(-1, 4), _array(scores).reshape(-1)
    masks = None if run_lengths is None else [_compressed(mask) for mask in run_lengths]
    _check(corners, values, names, masks, options)
    if not len(values):
        return np.zeros(0, np.int64)
    labels = _ranks(names)
    order = _canonical_order(corners, values, labels, masks)
    groups = np.zeros(len(order), np.int64) if options.class_agnostic else labels[order]
    if options.by == 'box':
        kept = _suppress_boxes(corners[order], groups, options.iou_threshold)[: options.max_detections]
    else:
        assert masks is not None  # checked above
        ranked = [masks[index] for index in order.tolist()]
        kept = _suppress_masks(ranked, groups, options.iou_threshold, options.max_detections)
    return order[kept]


def _array(values: ArrayLike | Tensor) -> NDArray[np.float64]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, np.float64)


def _compressed(mask: Mapping[str, Any]) -> dict[str, Any]:
    counts = mask['counts']
    return {'size': list(mask['size']), 'counts': counts.encode() if isinstance(counts, str) else counts}


def _check(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    names: Sequence[str],
    masks: Sequence[Mapping[str, Any]] | None,
    options: MergeOptions,
) -> None:
    lengths = [len(boxes), len(scores), len(names)] + ([] if masks is None else [len(masks)])
    if len(set(lengths)) > 1:
        raise ValueError(f'boxes, scores, names (and masks) must be of one length, got {lengths}.')
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError('boxes and scores must be finite; leave out proposals without a box or a score.')
    if options.by == 'mask' and masks is None:
        raise ValueError("by='mask' compares masks: pass run_lengths, or merge by='box'.")
    if masks and len(sizes := {tuple(mask['size']) for mask in masks}) > 1:
        raise ValueError(f'All masks must have the size of the image, got {sorted(sizes)}.')


def _ranks(values: Sequence[Any]) -> NDArray[np.int64]:
    """Of each value its place among the different ones."""
    ranks = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return np.array([ranks[value] for value in values], np.int64)


def _canonical_order(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    masks: Sequence[Mapping[str, Any]] | None,
) -> NDArray[np.int64]:
    """Best first; what is left equal is the same proposal twice."""
    keys = [labels, *boxes.T[::-1], -scores]  # the last is compared first
    if masks is not None:
        keys.insert(0, _ranks([mask['counts'] for mask in masks]))
    return np.lexsort(keys).astype(np.int64)


def _suppress_boxes(
    boxes: NDArray[np.float64], groups: NDArray[np.int64], threshold: float
) -> NDArray[np.int64]:
    """Ranks kept, of boxes [P, 4] given best first."""
    corners = torch.from_numpy(boxes)
    # Scores stand for ranks: torchvision then keeps the order as it is.
    scores = torch.arange(len(boxes), 0, -1, dtype=corners.dtype)
    kept = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        kept.append(members[nms(corners[members], scores[members], threshold).numpy()])
    return np.sort(np.concatenate(kept))


def _suppress_masks(
    masks: Sequence[dict[str, Any]], groups: NDArray[np.int64], threshold: float, limit: int | None
) -> NDArray[np.int64]:
    """Ranks kept, of masks given best first.

    Masks are compared with those kept alone, a row at a time, and only where areas and boxes leave an IoU
    above the threshold possible: memory grows with P, not with its square.
    """
    # One by one: pycocotools counts up to 255 masks at once under numpy 2.
    areas = np.array([rle.area(mask) for mask in masks], np.float64)
    corners = rle.toBbox(masks).astype(np.float64)
    corners[:, 2:] += corners[:, :2]
    alive = np.ones(len(masks), bool)
    kept: list[int] = []
    for rank in range(len(masks)):
        if not alive[rank]:
            continue
        kept.append(rank)
        if len(kept) == limit:
            break
        rest = rank + 1 + np.flatnonzero(alive[rank + 1 :] & (groups[rank + 1 :] == groups[rank]))
        rest = rest[_greatest_iou(areas, corners, rank, rest) > threshold]
        if len(rest):
            overlaps = rle.iou([masks[other] for other in rest.tolist()], [masks[rank]], [0])[:, 0]
            alive[rest[overlaps > threshold]] = False
    return np.array(kept, np.int64)


def _greatest_iou(
    areas: NDArray[np.float64], corners: NDArray[np.float64], one: int, others: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The IoU that masks of these areas and boxes have at most."""
    low = np.maximum(corners[one, :2], corners[others, :2])
    high = np.minimum(corners[one, 2:], corners[others, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    shared = np.minimum(shared, np.minimum(areas[one], areas[others]))
    return shared / np.maximum(areas[one] + areas[others] - shared, 1)
