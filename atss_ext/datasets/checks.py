"""What a COCO annotation file must satisfy before a dataset may use it.

mmdet drops most faulty annotations without a word (an inverted box counts as too small, an
unknown class name shifts the labels of the others) and dies on the rest in the middle of a
run. Here the same rules are applied beforehand, and what is wrong is named. Plain functions
on the parsed file: neither mmdet nor torch is needed.

Source of the rules: ``CocoDataset.load_data_list``, ``parse_data_info`` and ``filter_data``
of mmdet 3.3.
"""

import difflib
import gc
import json
import os
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

LARGE_FILE = 10**8
"""Bytes from which reading a file takes seconds and is said."""
MAX_LISTED = 10
"""How many names or ids one sentence lists at most."""
_NUMBER = (frozenset({int, float}), 'a number')
_TEXT = (frozenset({str}), 'a text')
_ID = (frozenset({int, float, str}), 'a number or a text')
_KINDS = {
    **{'id': _ID, 'image_id': _ID, 'category_id': _ID, 'file_name': _TEXT, 'name': _TEXT},
    **{'width': _NUMBER, 'height': _NUMBER, 'area': _NUMBER},
}


class DataError(ValueError):
    """Data that cannot be used; the message is one sentence with the value and the way out."""


@dataclass(frozen=True)
class CocoSummary:
    """What a dataset keeps of an annotation file.

    Attributes:
        images: images left after the filter.
        boxes: usable boxes (no crowd, a wanted class, at least one pixel wide) on those images.
        notes: sentences about what is legal, yet hardly meant.
    """

    images: int
    boxes: int
    notes: tuple[str, ...] = ()


def read_coco(ann_file: str | os.PathLike[str]) -> dict[str, Any]:
    """Parse an annotation file.

    Returns:
        The content, a dict that has at least ``images``.

    Raises:
        DataError: the file is missing, is no JSON, or holds no COCO annotations.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise DataError(
            f'annotation file {path} does not exist; correct data_root and ann_file of the dataset, '
            'or put the file there'
        )
    content = parse_json(path, f'annotation file {path}')
    if not isinstance(content, dict) or not isinstance(content.get('images'), list):
        raise DataError(f"annotation file {path} has no list 'images'; a file in COCO format is needed")
    return content


def parse_json(path: str | os.PathLike[str], name: str) -> Any:
    """Parse a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        path: the file.
        name: what it is called in messages.

    Raises:
        DataError: it cannot be read, is no text, or no JSON.
    """
    # A file of a million objects has no cycles, and looking for them takes a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with open(path, 'rb') as stream:  # JSON says itself in which of these it is
            _say_large(os.fstat(stream.fileno()).st_size, name)
            return json.load(stream)
    except UnicodeDecodeError as error:
        raise DataError(f'{name} is no text in UTF-8 ({error}); save it as UTF-8') from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f'{name} is no valid JSON ({error}); it may be cut off: fetch or write it again'
        ) from None
    except OSError as error:
        raise DataError(f'{name} cannot be read ({error.strerror}); correct its permissions') from None
    finally:
        if collecting:
            gc.enable()


def _say_large(size: int, name: str) -> None:
    """Tell whoever waits for a file of many seconds, once for all ranks."""
    if size >= LARGE_FILE and os.environ.get('RANK', '0') == '0':
        print(f'reading {name}, {size / 1e6:,.0f} MB ...', file=sys.stderr, flush=True)


def flag_fault(flag: Any, key: str) -> str | None:
    """What is wrong with a flag such as ``iscrowd`` or ``corner_case``; None where it is 0, 1 or not there.

    Args:
        flag: what stands there; true and false are 1 and 0.
        key: where it stands, for the message.

    Returns:
        the rest of a sentence that says whose it is.
    """
    if flag is None or (isinstance(flag, int | float) and flag in (0, 1)):
        return None
    return f"has {reprlib.repr(flag)} for '{key}', which must be 0 or 1"


def check_coco(
    content: Mapping[str, Any],
    ann_file: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    filter_cfg: Mapping[str, Any] | None = None,
) -> CocoSummary:
    """Check what a dataset would read of a parsed annotation file.

    Args:
        content: the parsed file (:func:`read_coco`).
        ann_file: its path, for the messages.
        classes: the names the config wants, in its order; None takes every category.
        filter_cfg: mmdet's ``filter_empty_gt`` and ``min_size``; None keeps every image.

    Raises:
        DataError: at the first fault. Crowd boxes, boxes marked ``ignore`` and categories that
            the config does not want are never faults; boxes thinner than a pixel are dropped by
            the dataset and only noted (COCO's own train2017 holds two of zero height).
    """
    images: list[dict[str, Any]] = content['images']
    annotations = _section(content, 'annotations', ann_file)
    categories = _section(content, 'categories', ann_file)
    _check_fields(images, ('id', 'file_name', 'width', 'height'), 'image', ann_file)
    _check_fields(annotations, ('id', 'image_id', 'category_id', 'bbox', 'area'), 'annotation', ann_file)
    _check_fields(categories, ('id', 'name'), 'category', ann_file)
    for kind, items in (('image', images), ('annotation', annotations), ('category', categories)):
        _check_unique(items, kind, ann_file)

    wanted, notes = _match_classes(categories, classes, ann_file)
    _check_references(annotations, 'image_id', {image['id'] for image in images}, ann_file)
    _check_references(annotations, 'category_id', {category['id'] for category in categories}, ann_file)
    kept = _filter_images(images, annotations, wanted, filter_cfg or {}, ann_file)
    used = [
        ann
        for ann in annotations
        if ann['category_id'] in wanted and not ann.get('iscrowd') and not ann.get('ignore')
    ]
    usable, note = _check_boxes(used, images, ann_file)
    boxes = sum(1 for ann, ok in zip(used, usable.tolist(), strict=True) if ok and ann['image_id'] in kept)
    return CocoSummary(len(kept), boxes, (*notes, *([note] if note else [])))


def check_images(
    file_names: Iterable[str], image_dir: str | os.PathLike[str], ann_file: str | os.PathLike[str]
) -> None:
    """Check that every image file exists, with one directory listing per folder.

    Args:
        file_names: paths below ``image_dir``, as the annotation file has them.
        image_dir: the folder that ``data_prefix`` names.
        ann_file: path of the annotation file, for the messages.

    Raises:
        DataError: the folder or an image is missing.
    """
    root = Path(image_dir)
    if not root.is_dir():
        raise DataError(
            f'image folder {root} does not exist; correct data_root and data_prefix of the dataset, '
            'or put the images there'
        )
    listings: dict[str, set[str]] = {}
    missing: list[str] = []
    for name in file_names:
        folder, _, base = name.rpartition('/')
        if folder not in listings:
            listings[folder] = _listing(root / folder)
        if base not in listings[folder]:
            missing.append(name)
    if missing:
        count = (
            f'{len(missing)} images of {ann_file} are' if len(missing) > 1 else f'an image of {ann_file} is'
        )
        raise DataError(
            f'{count} missing, first {root / missing[0]}; put the files there, or correct data_root and '
            'data_prefix of the dataset'
        )


def _listing(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known name, or nothing."""
    close = difflib.get_close_matches(name, [item for item in known if item != name], n=1, cutoff=0.7)
    return f" (did you mean '{close[0]}'?)" if close else ''


def _some(names: Sequence[str]) -> str:
    listed = ', '.join(f"'{name}'" for name in names[:MAX_LISTED])
    return f'{listed} and {len(names) - MAX_LISTED} more' if len(names) > MAX_LISTED else listed


def _check_fields(items: list[Any], keys: tuple[str, ...], kind: str, ann_file: Any) -> None:
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise DataError(
                f'{kind} number {index} of {ann_file} is {item!r}; COCO format has an object there'
            )
        for key in keys:
            if key not in item:
                # mmdet reads `area` even where it trains on boxes alone.
                way_out = 'add it (width * height for a plain box)' if key == 'area' else 'add it'
                if key == 'file_name' and 'coco_url' in item:
                    way_out = "but a 'coco_url' as LVIS has: read it with type='atss_ext.LvisDataset'"
                raise DataError(
                    f"{kind} {item.get('id', f'number {index}')} of {ann_file} has no '{key}'; {way_out}"
                )

    for key in keys:
        kinds, words = _KINDS.get(key, (None, ''))
        if kinds is not None and {type(item[key]) for item in items} - kinds:
            item = next(item for item in items if type(item[key]) not in kinds)
            raise DataError(
                f"{kind} {reprlib.repr(item['id'])} of {ann_file} has {reprlib.repr(item[key])} for '{key}', "
                f'which must be {words}; correct it'
            )


def _section(content: Mapping[str, Any], name: str, ann_file: Any) -> list[dict[str, Any]]:
    section: Any = content.get(name, [])
    if not isinstance(section, list):
        raise DataError(
            f"'{name}' of {ann_file} is {reprlib.repr(section)}; COCO format has a list there, so correct it"
        )
    return section


def _check_unique(items: list[dict[str, Any]], kind: str, ann_file: Any) -> None:
    counts = Counter(item['id'] for item in items)
    if len(counts) < len(items):
        twice, count = counts.most_common(1)[0]
        raise DataError(f'{kind} id {twice} stands {count} times in {ann_file}; give each {kind} its own id')


def _match_classes(
    categories: list[dict[str, Any]], classes: Sequence[str] | None, ann_file: Any
) -> tuple[set[Any], list[str]]:
    """Return the ids of the wanted categories, and notes."""
    names = [category['name'] for category in categories]
    if classes is None:
        return {category['id'] for category in categories}, []
    if isinstance(classes, str):
        raise DataError(
            f"classes is the text '{classes}', not a list of names; with a single class write ('{classes}', )"
        )
    missing = [name for name in classes if name not in names]
    if missing:
        what = (
            f"the class '{missing[0]}' of the config is"
            if len(missing) == 1
            else f"{len(missing)} of the config's {len(classes)} classes (first '{missing[0]}') are"
        )
        hint = nearest(missing[0], names) if len(missing) == 1 else ''
        has = f'which has {_some(names)}' if names else 'which has none'
        raise DataError(
            f"{what} not among the categories of {ann_file}{hint}, {has}; set the dataset's "
            'metainfo=dict(classes=(...)) to names of the file'
        )
    found = [name for name in names if name in set(classes)]
    if len(found) > len(classes):
        twice = Counter(found).most_common(1)[0][0]
        raise DataError(f"two categories of {ann_file} are called '{twice}'; give each its own name")
    notes = []
    if found != list(classes):
        notes.append(
            f'the config lists its classes in another order than {ann_file}; mmdet numbers labels in order '
            f'of the file, so pictures would show wrong names: list them as {_some(found)}'
        )
    return {category['id'] for category in categories if category['name'] in set(classes)}, notes


def _check_references(annotations: list[dict[str, Any]], key: str, known: set[Any], ann_file: Any) -> None:
    unknown = {ann[key] for ann in annotations} - known
    if unknown:
        bad = [ann for ann in annotations if ann[key] in unknown]
        kind, section = ('image', 'images') if key == 'image_id' else ('category', 'categories')
        more = f' (and {len(bad) - 1} more annotations like it)' if len(bad) > 1 else ''
        raise DataError(
            f"annotation {bad[0]['id']} of {ann_file} names {kind} id {bad[0][key]}, which '{section}' does "
            f'not have{more}; correct or remove it'
        )


def _filter_images(
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    wanted: set[Any],
    filter_cfg: Mapping[str, Any],
    ann_file: Any,
) -> set[Any]:
    """Return the ids of the images that the dataset keeps; none left is an error."""
    if not images:
        raise DataError(f'{ann_file} lists no image; name an annotation file with images in ann_file')
    min_size = filter_cfg.get('min_size', 0)
    large = {image['id'] for image in images if min(image['width'], image['height']) >= min_size}
    kept = large
    if filter_cfg.get('filter_empty_gt', False):
        kept = large & {ann['image_id'] for ann in annotations if ann['category_id'] in wanted}
    if not kept:
        raise DataError(
            f'none of the {len(images)} images of {ann_file} is left to train on: '
            f'{len(images) - len(large)} are smaller than min_size={min_size} and the others have no '
            "annotation of the wanted classes; correct the classes or relax the dataset's filter_cfg"
        )
    return kept


def _box_array(annotations: list[dict[str, Any]], ann_file: Any) -> np.ndarray:
    """Return the boxes as [T, 4] float64 in COCO's (x, y, width, height)."""
    boxes = [ann['bbox'] for ann in annotations]
    try:
        if set(map(len, boxes)) - {4} or set(map(type, chain.from_iterable(boxes))) - {int, float}:
            raise ValueError('a box without four numbers')
        return np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)
    except (TypeError, ValueError):
        for ann in annotations:
            box = ann['bbox']
            if not (isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box)):
                raise DataError(
                    f'annotation {ann["id"]} of {ann_file} has the box {box!r}; COCO format wants four '
                    'numbers [x, y, width, height]'
                ) from None
        raise


def _check_boxes(
    annotations: list[dict[str, Any]], images: list[dict[str, Any]], ann_file: Any
) -> tuple[np.ndarray, str | None]:
    """Return which boxes the dataset keeps, [T] bool, and a note on those it drops."""
    boxes = _box_array(annotations, ann_file)
    _refuse(
        ~np.isfinite(boxes).all(axis=1),
        annotations,
        ann_file,
        'a box that is not finite',
        'correct or remove it',
    )
    _refuse(
        (boxes[:, 2:] < 0).any(axis=1),
        annotations,
        ann_file,
        'an inverted box (negative width or height)',
        "COCO format is [x, y, width, height]: correct it, remove it, or mark it with 'ignore': 1",
    )
    sizes = {image['id']: (image['width'], image['height']) for image in images}
    limits = np.array([sizes[ann['image_id']] for ann in annotations], np.float64).reshape(-1, 2)
    area = np.array([ann['area'] for ann in annotations], np.float64)
    inside = (np.minimum(boxes[:, :2] + boxes[:, 2:], limits) > np.maximum(boxes[:, :2], 0)).all(axis=1)
    usable = inside & (area > 0) & (boxes[:, 2:] >= 1).all(axis=1)
    dropped = int((~usable).sum())
    if not dropped:
        return usable, None
    first = annotations[int(np.argmin(usable))]
    return usable, (
        f'{dropped} of {len(annotations)} boxes of {ann_file} are thinner than one pixel, have no area or '
        f'lie outside their image, and are dropped (first: annotation {first["id"]}, box {first["bbox"]})'
    )


def _refuse(bad: Any, annotations: list[dict[str, Any]], ann_file: Any, fault: str, way_out: str) -> None:
    count = int(bad.sum())
    if count:
        first = annotations[int(np.argmax(bad))]
        more = f' ({count} annotations are like it)' if count > 1 else ''
        raise DataError(
            f'annotation {first["id"]} of {ann_file} has {fault}: {first["bbox"]}{more}; {way_out}'
        )
