"""From what VL-SAM found, as ``atss_ext.vlsam.export.to_coco`` writes it, to a COCO training set."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.annotation_checks import check_annotations, read_annotations
from atss_ext.datasets.annotation_checks.table import Table, number_rows, numbers, read_table
from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.naming.encoder import TextEncoder
from atss_ext.pseudo_labels import filters
from atss_ext.pseudo_labels.classes import merge_names, order_classes
from atss_ext.pseudo_labels.filters import FilterOptions
from atss_ext.pseudo_labels.splitting import split_images

LABELS = 'VL-SAM'
"""By what ``info.labels`` of a file says where its labels are from."""

REASONS = (
    'no box to learn from (thinner than a pixel, no area, or not around its mask)',
    'name of no class',
    'confidence below the threshold',
    'mask smaller than the least area',
    'overlaps a better box of its class',
    'among the least confident of its class',
    'class of too few boxes, or of one image only',
)
"""Why a box is left out, in the order in which boxes are looked at; each counts once."""

_UNFIT, _NAMELESS, _SCORE, _AREA, _OVERLAP, _QUANTILE, _RARE = range(len(REASONS))


@dataclass(frozen=True)
class LabelOptions:
    """How a training set is made.

    Attributes:
        merge_map: class -> names (:func:`~.classes.read_merge_map`); empty merges by words alone.
        others: 'keep' or 'drop' names of no class of the map.
        encoder: of names that fit no class of the map by words, see :func:`~.classes.merge_names`.
        encoder_threshold: cosine below which its answer does not count.
        filters: which boxes stay.
        empty: 'drop' or 'keep' images without labels.
        all_classes: keep the classes of the map that got no box, too.
        val_fraction: share of the images to validate on.
        seed: of the split.

    Raises:
        ValueError: a value out of its range.
    """

    merge_map: Mapping[str, Sequence[str]] = field(default_factory=dict)
    others: str = 'keep'
    encoder: TextEncoder | Mapping[str, Any] | None = None
    encoder_threshold: float | None = None
    filters: FilterOptions = field(default_factory=FilterOptions)
    empty: str = 'drop'
    all_classes: bool = False
    val_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.empty not in ('drop', 'keep'):
            raise ValueError(f"empty must be 'drop' or 'keep', but is {self.empty!r}.")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f'val_fraction must be from 0 to below 1, but is {self.val_fraction}.')
        if self.others not in ('keep', 'drop'):
            raise ValueError(f"others must be 'keep' or 'drop', but is {self.others!r}.")
        if not self.merge_map and (self.all_classes or self.others == 'drop' or self.encoder is not None):
            raise ValueError("all_classes, an encoder and others='drop' need a merge map; give the classes.")
        if self.encoder_threshold is not None and not -1 <= self.encoder_threshold <= 1:
            raise ValueError(f'encoder_threshold must be from -1 to 1, but is {self.encoder_threshold}.')


@dataclass(frozen=True)
class PseudoLabels:
    """A training set.

    Attributes:
        parts: 'train', and 'val' where there is one -> content of a COCO file.
        summary: images, boxes (kept, and dropped by reason) and classes, in types that JSON has.
    """

    parts: dict[str, dict[str, Any]]
    summary: dict[str, Any]


def read_found(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that ``tools/vlsam.py`` exported, and refuse one that is damaged.

    Raises:
        DataError: it cannot be read, has errors that ``tools/datasets/check_annotations.py`` lists, an
            annotation without a score, or no annotation.
    """
    content = read_annotations(path)
    faults = [one for one in check_annotations(content, 'coco').findings if one.severity == 'error']
    if faults:
        first = f', as at {faults[0].examples[0]}' if faults[0].examples else ''
        raise DataError(
            f'{path} has faults ({faults[0].message}{first}); tools/datasets/check_annotations.py lists them'
        )
    rows = content.get('annotations') or []
    if not rows:
        raise DataError(f'{path} has no box: VL-SAM found nothing; look at its images and settings')
    scores, missing = numbers(rows, 'score')
    bad = missing | ~np.isfinite(scores)
    if bad.any():
        row = rows[int(bad.argmax())]
        raise DataError(
            f'annotation {row["id"]} of {path} has the score {row.get("score")!r}; name the annotations.json '
            'that tools/vlsam.py wrote'
        )
    return content


def make_pseudo_labels(content: Mapping[str, Any], options: LabelOptions) -> PseudoLabels:
    """Merge names, leave out what is unfit, and split.

    Annotations stay what they are (box, area, mask, score and name) and get the id of their class; only a
    box that reaches over its image is cut. The result has no finding of
    :func:`~atss_ext.datasets.annotation_checks.check_annotations`.

    Args:
        content: :func:`read_found`.
        options: what stays, and how.

    Raises:
        DataError: an image without a file name or two of one, or no box is left.
    """
    table, _ = read_table(content)
    _check_file_names(table)
    names = _names(table)
    classes = merge_names(
        names,
        options.merge_map,
        others=options.others,
        encoder=options.encoder,
        threshold=options.encoder_threshold,
    )
    labels = [classes[name] or '' for name in names]
    boxes = _inside(table)
    why = _reasons(table, boxes, labels, options)
    images, val = _choose(table, labels, why, options)
    dropped = Counter(why.tolist())
    if not dropped[-1]:
        said = ', '.join(f'{dropped[row]} {reason}' for row, reason in enumerate(REASONS) if dropped[row])
        raise DataError(f'none of the {len(why)} boxes is left ({said}); relax these')
    order = order_classes(Counter(labels[row] for row in _kept(why)), options.merge_map)
    if options.all_classes:
        order = list(options.merge_map) + [name for name in order if name not in options.merge_map]
    sides = {'train': [row for row in images if row not in val], 'val': [row for row in images if row in val]}
    parts = {
        name: _part(content, table, boxes, labels, why, rows, order)
        for name, rows in sides.items()
        if rows or name == 'train'
    }
    return PseudoLabels(parts, _summary(table, names, labels, why, sides, order))


def _check_file_names(table: Table) -> None:
    counts = Counter(image.get('file_name') for image in table.images)
    if None in counts:
        raise DataError("an image has no 'file_name'; name the annotations.json that tools/vlsam.py wrote")
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise DataError(f'{count} images have the file name {name}; each image may stand there once')


def _names(table: Table) -> list[str]:
    """What VL-SAM called each of N objects; of other tools' files the category's name."""
    of_category = [str(category['name']) for category in table.categories]
    return [
        str(row.get('name') or of_category[number])
        for row, number in zip(table.annotations, table.category_rows.tolist(), strict=True)
    ]


def _inside(table: Table) -> NDArray[np.float64]:
    """xywh [N, 4], the part of each box that is in its image; to the bit where that is all of it."""
    boxes, _ = number_rows([row['bbox'] for row in table.annotations], 4)
    sizes = table.sizes[table.image_rows]
    starts = np.clip(boxes[:, :2], 0, sizes)
    ends = np.clip(boxes[:, :2] + boxes[:, 2:], 0, sizes)
    cut = np.concatenate([starts, ends - starts], axis=1)
    over = (boxes[:, :2] < 0) | (boxes[:, :2] + boxes[:, 2:] > sizes)
    return np.where(over.any(axis=1, keepdims=True), cut, boxes)


def _reasons(
    table: Table, boxes: NDArray[np.float64], labels: Sequence[str], options: LabelOptions
) -> NDArray[np.int64]:
    """Why each of N boxes is left out, its place in :data:`REASONS`; -1 stays."""
    chosen = options.filters
    scores, _ = numbers(table.annotations, 'score')
    areas, _ = numbers(table.annotations, 'area')
    why = np.full(len(scores), -1, np.int64)

    def leave_out(bad: NDArray[np.bool_], reason: int) -> None:
        why[(why < 0) & bad] = reason

    leave_out(_unfit(table, boxes, areas), _UNFIT)
    leave_out(np.array([not label for label in labels]), _NAMELESS)
    leave_out(scores < chosen.score_thr, _SCORE)
    leave_out(areas < chosen.min_area, _AREA)
    # Each sees only what is left so far: [n] of the rows that stay.
    rows = _kept(why)
    best = filters.best_of_overlapping(
        boxes[rows], scores[rows], [labels[row] for row in rows], table.image_rows[rows], chosen.nms_iou
    )
    why[rows[~best]] = _OVERLAP
    rows = _kept(why)
    above = filters.above_quantile(scores[rows], [labels[row] for row in rows], chosen.class_quantile)
    why[rows[~above]] = _QUANTILE
    rare = filters.rare_classes([labels[row] for row in _kept(why)], chosen.min_count)
    leave_out(np.array([label in rare for label in labels]), _RARE)
    return why


def _unfit(table: Table, boxes: NDArray[np.float64], areas: NDArray[np.float64]) -> NDArray[np.bool_]:
    """What mmdet drops without a word, and masks that their box does not hold; bool [N]."""
    masked = np.array([bool(row.get('segmentation')) for row in table.annotations])
    # Half a pixel on every side, as the checker of annotations allows.
    outside = areas > (boxes[:, 2] + 1) * (boxes[:, 3] + 1)
    unfit: NDArray[np.bool_] = (boxes[:, 2:] < 1).any(axis=1) | (areas <= 0) | outside
    return unfit | ~masked if masked.any() else unfit


def _kept(why: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.flatnonzero(why < 0)


def _choose(
    table: Table, labels: Sequence[str], why: NDArray[np.int64], options: LabelOptions
) -> tuple[list[int], set[int]]:
    """The images of the set, and those of its part to validate on; changes ``why`` of what cannot be split.

    Without a class that both parts cannot show, images may be empty, and the split another one: repeated
    until all fits.
    """
    while True:
        shown: list[set[str]] = [set() for _ in table.images]
        for row in _kept(why).tolist():
            shown[table.image_rows[row]].add(labels[row])
        images = [row for row, some in enumerate(shown) if some or options.empty == 'keep']
        names = [str(table.images[row]['file_name']) for row in images]
        val, failed = split_images(
            names, [frozenset(shown[row]) for row in images], options.val_fraction, options.seed
        )
        if not failed:
            return images, {images[place] for place in val}
        why[(why < 0) & np.array([label in failed for label in labels])] = _RARE


def _part(
    content: Mapping[str, Any],
    table: Table,
    boxes: NDArray[np.float64],
    labels: Sequence[str],
    why: NDArray[np.int64],
    rows: Sequence[int],
    order: Sequence[str],
) -> dict[str, Any]:
    """The COCO content of some images."""
    ids = {name: number for number, name in enumerate(order, start=1)}
    here = set(rows)
    annotations = [
        {**table.annotations[row], 'bbox': boxes[row].tolist(), 'category_id': ids[labels[row]], 'iscrowd': 0}
        for row in _kept(why).tolist()
        if int(table.image_rows[row]) in here
    ]
    return {
        'info': {**(content.get('info') or {}), 'labels': LABELS},
        'images': [table.images[row] for row in rows],
        'annotations': annotations,
        'categories': [{'id': number, 'name': name} for name, number in ids.items()],
    }


def _summary(
    table: Table,
    names: Sequence[str],
    labels: Sequence[str],
    why: NDArray[np.int64],
    sides: Mapping[str, Sequence[int]],
    order: Sequence[str],
) -> dict[str, Any]:
    kept = _kept(why).tolist()
    labelled = {int(table.image_rows[row]) for row in kept}
    dropped = Counter(why.tolist())
    counts = Counter(labels[row] for row in kept)
    merged: dict[str, Counter[str]] = {}
    for row in kept:
        merged.setdefault(labels[row], Counter())[names[row]] += 1
    return {
        'images': {
            'found': len(table.images),
            'with labels': len(labelled),
            **{name: len(rows) for name, rows in sides.items()},
        },
        'boxes': {
            'found': len(names),
            'kept': len(kept),
            'dropped': {reason: dropped[row] for row, reason in enumerate(REASONS) if dropped[row]},
        },
        'classes': {
            name: {'boxes': counts[name], 'names': dict(merged.get(name, Counter()).most_common())}
            for name in order
        },
    }
