"""Tab 3: which priors of an image become positive for which object, by one config or two."""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from atss_ext.cli.options import read_config
from atss_ext.datasets.annotation_checks import check_annotations, read_annotations
from atss_ext.datasets.checks import DataError, check_coco, nearest
from atss_ext.errors import UserError
from atss_ext.visualization.assignments import AssignedImage, Explainer, ImageSource, draw_comparison
from atss_ext.vlsam.protocols import Image
from atss_ext.webui.offer import called

MOST_BOXES = 200
_NO_MATTER = ('crowd-missing', 'box-outside')  # such a box is an object, or none, without a word
_EXAMPLE = 'write one box a line: x1 y1 x2 y2 name, in pixels, such as 20 30 120 90 cat'


def gts_from_text(text: str, size: tuple[int, int]) -> dict[str, Any]:
    """A COCO dataset of one image from lines ``x1 y1 x2 y2 name``; blanks, commas and tabs part the numbers.

    Args:
        text: the lines; empty ones are passed over, the name may be left away.
        size: (H, W) of the image.

    Raises:
        UserError: a line is no box, or there are none or too many.
    """
    lines = [(number, line) for number, line in enumerate((text or '').splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f'no boxes are given; {_EXAMPLE}, or send a COCO json')
    if len(lines) > MOST_BOXES:
        raise UserError(f'{len(lines)} boxes are given; this page takes up to {MOST_BOXES}')
    found = [_box_of_line(number, line, size) for number, line in lines]
    names = list(dict.fromkeys(name for _, name in found))
    annotations = [
        _annotation(number, box, 1 + names.index(name)) for number, (box, name) in enumerate(found, 1)
    ]
    categories = [{'id': number, 'name': name} for number, name in enumerate(names, 1)]
    return {'images': [_image_entry(size)], 'annotations': annotations, 'categories': categories}


def gts_from_coco(path: str, file_name: str, size: tuple[int, int]) -> dict[str, Any]:
    """The part of a COCO json that is of one image: that of its file name, or the only one there.

    Args:
        path: of the json.
        file_name: of the image, as its sender calls it.
        size: (H, W) of the image.

    Raises:
        DataError: the file is no COCO json, or what it says of the image cannot be used.
        UserError: it has no such image, the image is of another size, or no box or too many are left.
    """
    shown = Path(path).name
    with called(path, shown):
        content = read_annotations(path)
    images = [image for image in content['images'] if isinstance(image, dict)]
    names = [Path(str(image.get('file_name'))).name for image in images]
    same = [place for place, name in enumerate(names) if name == file_name]
    if not same and len(images) == 1:
        same = [0]
    if len(same) != 1:
        raise UserError(
            f'{shown} has {len(same) or "no"} image{"s" if len(same) > 1 else ""} called {file_name}'
            f'{nearest(file_name, names)}; send the image under its file_name'
        )
    image = images[same[0]]
    said = image.get('height'), image.get('width')
    if said != size:
        raise UserError(
            f'{shown} says that {file_name} is {said[1]} x {said[0]} px, but it is {size[1]} x {size[0]}: '
            'send the image that was annotated'
        )
    gts: dict[str, Any] = {key: content[key] for key in ('annotations', 'categories') if key in content}
    gts.update(images=[_image_entry(size)], annotations=_own(content.get('annotations', []), image))
    _refuse_faults(gts, shown)
    count = len(gts['annotations'])
    if not count or count > MOST_BOXES:
        raise UserError(f'{shown} has {count} boxes for {file_name}; from 1 to {MOST_BOXES} are shown')
    left = check_coco(gts, shown)
    if not left.boxes:
        what = left.notes[0] if left.notes else 'all of them are crowds or to be ignored'
        raise UserError(f'{shown} has no box for {file_name} that could be assigned: {what}')
    return gts


def explain_image(
    image: Image, gts: Mapping[str, Any], configs: Sequence[tuple[str, str]]
) -> list[tuple[str, AssignedImage]]:
    """Assign the priors of an image by every config.

    Args:
        image: RGB uint8 [H, W, 3].
        gts: a COCO dataset of it, as :func:`gts_from_text` makes it.
        configs: (name, path) of one or more.

    Returns:
        heading and assignment, one a config.

    Raises:
        UserError: a config that cannot be read.
        AssignmentError: a config without anchors or an assigner.
        DataError: gts that cannot be used.
    """
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        Pillow.fromarray(image).save(Path(folder, gts['images'][0]['file_name']))
        ann_file = Path(folder, 'boxes.json')
        ann_file.write_text(json.dumps(gts))
        for name, path in configs:
            with called(path, name):
                cfg = read_config(path)
                explainer = Explainer(cfg)
            with called(ann_file, 'the annotations'):
                source = ImageSource(cfg, ann_file=str(ann_file), image_dir=folder)
            heading = f'{Path(name).stem} ({explainer.assigner_name})'
            if explainer.by_predictions:
                heading += ', of a random initial model'
            shown.append((heading, explainer.explain(source[0], source.classes)))
    return shown


def draw(
    path: Path, shown: Sequence[tuple[str, AssignedImage]], width: int = 360
) -> list[tuple[str, list[tuple[Image, str]]]]:
    """Write the picture of everything; returned are its panels, for a page of any width.

    Args:
        path: of the PNG to write.
        shown: heading and assignment, one a config.
        width: of a panel, in pixels.

    Returns:
        a heading a config, and its panels with captions: the image with its objects, then its levels.
    """
    rows = draw_comparison(path, shown, 'Which priors learn which object', width)
    with Pillow.open(path) as whole:
        page = np.asarray(whole.convert('RGB'))
    pictures = []
    for (heading, image), panels in zip(shown, rows, strict=True):
        height = round(image.image.shape[0] * panels[0].scale)
        cut = [page[top : top + height, left : left + width] for left, top, _ in panels]
        pictures.append((heading, list(zip(cut, _captions(image), strict=True))))
    return pictures


def _captions(image: AssignedImage) -> list[str]:
    counts = image.positives.sum(0).tolist()
    levels = [
        f'stride {stride:g}: {count} positive{"s" if count != 1 else ""}'
        for stride, count in zip(image.strides, counts, strict=True)
    ]
    return ['objects', *levels]


def table(shown: Sequence[tuple[str, AssignedImage]]) -> tuple[list[str], list[list[Any]]]:
    """Head and rows: a row a config and object, its threshold (IoU) and its positives on every level."""
    levels = max(len(image.level_sizes) for _, image in shown)
    first, *rest = next(image.strides for _, image in shown if len(image.strides) == levels)
    strides = [f'stride {first:g}', *(f'{stride:g}' for stride in rest)]
    head = ['config', 'object', 'threshold', *strides, 'positives']
    rows: list[list[Any]] = []
    for heading, image in shown:
        for number, counts in enumerate(image.positives.tolist()):
            threshold = '-' if image.thresholds is None else f'{image.thresholds[number]:.3f}'
            padded = [*counts, *[0] * (levels - len(counts))]
            rows.append(
                [
                    heading.partition(' ')[0],
                    f'{number + 1} {image.names[number]}',
                    threshold,
                    *padded,
                    sum(counts),
                ]
            )
    return head, rows


def verdict(shown: Sequence[tuple[str, AssignedImage]], boxes: int) -> str:
    """One sentence a config: positives, objects, and objects without a positive; and one of boxes left out.

    Args:
        shown: heading and assignment, one a config.
        boxes: how many were sent.
    """
    sentences = []
    for heading, image in shown:
        won = image.positives.sum(1)
        objects = f'{len(won)} object{"s" if len(won) > 1 else ""}'
        without = int((won == 0).sum())
        sentences.append(f'{heading}: {int(won.sum())} positives for {objects}, {without} with none.')
    rest = boxes - len(shown[0][1].names)
    if rest:
        sentences.append(
            f'{rest} of the {boxes} boxes {"take" if rest > 1 else "takes"} no part: a crowd, to be ignored, '
            'thinner than a pixel, or outside of the image.'
        )
    return ' '.join(sentences)


def _own(annotations: Any, image: Mapping[str, Any]) -> Any:
    """The annotations of an image, which is number 1 from here on; what is no list is left as it is."""
    if not isinstance(annotations, list):
        return annotations
    own = [one for one in annotations if isinstance(one, dict) and one.get('image_id') == image.get('id')]
    return [{**one, 'image_id': 1} for one in own]


def _refuse_faults(gts: Mapping[str, Any], shown: str) -> None:
    """Raise DataError with the first fault of annotations in the file called ``shown``."""
    findings = check_annotations(gts, 'coco').findings
    faults = [one for one in findings if one.severity == 'error' and one.code not in _NO_MATTER]
    if faults:
        where = f', as at {faults[0].examples[0]}' if faults[0].examples else ''
        raise DataError(f'{shown} has a fault ({faults[0].message}{where}); correct it')


def _box_of_line(number: int, line: str, size: tuple[int, int]) -> tuple[list[float], str]:
    parts = line.replace(',', ' ').split()
    try:
        x1, y1, x2, y2 = box = [float(part) for part in parts[:4]]
    except ValueError:
        raise UserError(f'line {number} of the boxes is {line.strip()[:60]!r}; {_EXAMPLE}') from None
    height, width = size
    inside = all(map(math.isfinite, box)) and 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    if not inside or x2 - x1 < 1 or y2 - y1 < 1:
        raise UserError(
            f'the box of line {number} is {line.strip()[:60]!r}; corners must be ordered, at least a pixel '
            f'apart and inside of the image, which is {width} x {height} pixels'
        )
    return box, ' '.join(parts[4:])[:40] or 'object'


def _annotation(number: int, box: list[float], category: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    size = [x2 - x1, y2 - y1]
    return {
        'id': number,
        'image_id': 1,
        'category_id': category,
        'bbox': [x1, y1, *size],
        'area': float(np.prod(size)),
        'iscrowd': 0,
    }


def _image_entry(size: tuple[int, int]) -> dict[str, Any]:
    return {'id': 1, 'file_name': 'image.png', 'height': size[0], 'width': size[1]}
