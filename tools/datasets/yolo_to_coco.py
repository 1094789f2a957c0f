"""Converts labels of YOLO (a text file an image, boxes or polygons) to one COCO file.

python tools/datasets/yolo_to_coco.py dataset/images/train train.json --data dataset/data.yaml
python tools/datasets/yolo_to_coco.py photos out.json --labels labels --names cat,dog

A line is `class x y width height`, the centre and size of a box, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon,
all but the class as fractions of the image as it is seen (upright by its EXIF). Labels lie beside the
images with `images` replaced by `labels` in the path, or in --labels. An image without a label file, or with
an empty one, has no objects and stays.

Ids count from 1: images in natural order of their names, annotations in order of images and lines; class 0 is
category 1.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from _converting import (
    IMAGE_SUFFIXES,
    categories,
    image_size,
    list_files,
    names_file,
    names_option,
    note_findings,
    progress,
    read_lines,
    write_json,
)

from atss_ext.cli.errors import run_tool
from atss_ext.cli.targets import check_targets
from atss_ext.errors import UserError

DECIMALS = 4
_SLACK = 1e-6  # fractions are written with six decimals


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Convert labels of YOLO to COCO.')
    parser.add_argument('images', type=Path, help='folder of the images')
    parser.add_argument('out', type=Path, help='the COCO file to write')
    parser.add_argument(
        '--labels', type=Path, metavar='DIR', help="else the images' folder, 'images' as 'labels'"
    )
    names = parser.add_mutually_exclusive_group(required=True)
    names.add_argument('--data', type=Path, metavar='YAML', help="a data.yaml with 'names'")
    names.add_argument('--names', help='class names with commas between, or a file of them')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a folder."""
    args = parse_args(argv)
    names = names_option(args.names) if args.names is not None else read_names(args.data)
    known = categories(names, str(args.data or '--names'))
    labels = args.labels or _labels_folder(args.images)
    pictures = list_files(args.images, IMAGE_SUFFIXES)
    files = _match(pictures, args.images, labels)
    read = filter(None, (*pictures, *files, args.data, names_file(args.names)))
    check_targets({'out': args.out}, read)
    say = progress('images')
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (picture, file) in enumerate(zip(pictures, files, strict=True), start=1):
        size = image_size(picture)
        name = picture.relative_to(args.images).as_posix()
        images.append({'id': number, 'file_name': name, 'width': size[0], 'height': size[1]})
        for thing in read_labels(file, size, len(names)) if file else ():
            annotations.append({'id': len(annotations) + 1, 'image_id': number, **thing})
        say(number, len(pictures))
    content = {'images': images, 'annotations': annotations, 'categories': known}
    write_json(args.out, content)
    note_findings(content)
    empty = len(images) - len({annotation['image_id'] for annotation in annotations})
    print(
        f'{len(images)} images ({empty} of them without an object), {len(annotations)} annotations and '
        f'{len(known)} categories lie in {args.out}'
    )


def read_names(path: Path) -> list[str]:
    """Class names of a data.yaml: a list, or a mapping from 0, 1, 2, ...

    Raises:
        UserError: the file cannot be read, or has no names of that kind.
    """
    if not path.is_file():
        raise UserError(f'{path} does not exist; correct the path, or name the classes with --names')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = ' '.join(str(error).split())
        raise UserError(f'{path} is no valid YAML ({reason}); correct it, or use --names') from None
    names = content.get('names') if isinstance(content, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            keys = ', '.join(map(str, names))
            raise UserError(f"'names' of {path} has the keys {keys}; they have to be 0 to {len(names) - 1}")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has no list 'names'; add it, or name the classes with --names")
    for index, name in enumerate(names):
        # YAML takes a bare yes, no, on or off for true and false.
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise UserError(f'name {index} of {path} is {name!r} for YAML; put the name in quotes')
    return [str(name) for name in names]


def read_labels(path: Path, size: tuple[int, int], classes: int) -> list[dict[str, Any]]:
    """The objects of a label file as COCO's category_id, bbox, area, iscrowd and, of polygons, segmentation.

    Args:
        path: the file.
        size: width and height of the image, pixels.
        classes: number of classes.

    Raises:
        UserError: a line is not as it has to be; the sentence names it.
    """
    objects = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if words:
            objects.append(_read_line(f'{path}, line {number}', words, size, classes))
    return objects


def _read_line(place: str, words: list[str], size: tuple[int, int], classes: int) -> dict[str, Any]:
    values = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            raise UserError(f"{place}: '{word}' is not a number; correct it") from None
    label, fractions = values[0], values[1:]
    if not (math.isfinite(label) and label == int(label) and 0 <= label < classes):
        raise UserError(
            f'{place}: class {words[0]} is not one of 0 to {classes - 1}; correct it, or add its name'
        )
    if len(values) == 6:
        raise UserError(
            f'{place}: six numbers are a detection with its confidence; labels have five, or a polygon'
        )
    if len(fractions) != 4 and (len(fractions) < 6 or len(fractions) % 2):
        raise UserError(f'{place}: {len(words)} numbers are neither a box (5) nor a polygon (7, 9, 11, ...)')
    odd = next((w for w, v in zip(words[1:], fractions, strict=True) if not -_SLACK <= v <= 1 + _SLACK), None)
    if odd is not None:
        raise UserError(f'{place}: {odd} is not between 0 and 1; coordinates are fractions of the image')
    shape = _box(place, fractions, size) if len(fractions) == 4 else _polygon(place, fractions, size)
    return {'category_id': int(label) + 1, **shape, 'iscrowd': 0}


def _box(place: str, fractions: list[float], size: tuple[int, int]) -> dict[str, Any]:
    x, y, width, height = fractions
    if width <= 0 or height <= 0:
        raise UserError(f'{place}: the box has no width or no height; correct or remove it')
    box = [(x - width / 2) * size[0], (y - height / 2) * size[1], width * size[0], height * size[1]]
    return {'bbox': _round(box), 'area': round(box[2] * box[3], DECIMALS)}


def _polygon(place: str, fractions: list[float], size: tuple[int, int]) -> dict[str, Any]:
    xs = [value * size[0] for value in fractions[0::2]]
    ys = [value * size[1] for value in fractions[1::2]]
    following = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    area = abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in following)) / 2
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if area == 0:
        raise UserError(f'{place}: the polygon has no area; correct or remove it')
    points = [value for point in zip(xs, ys, strict=True) for value in point]
    return {'bbox': _round(box), 'area': round(area, DECIMALS), 'segmentation': [_round(points)]}


def _round(values: list[float]) -> list[float]:
    return [round(value, DECIMALS) for value in values]


def _labels_folder(images: Path) -> Path:
    parts = list(images.parts)
    if 'images' not in parts:
        raise UserError(f"{images} has no folder 'images' in its path; name the labels' folder with --labels")
    parts[len(parts) - 1 - parts[::-1].index('images')] = 'labels'
    return Path(*parts)


def _match(pictures: list[Path], images: Path, labels: Path) -> list[Path | None]:
    """The label file of each image, or None; one without an image is an error."""
    if not pictures:
        raise UserError(f'{images} has no image; name the folder of the images')
    files = {path.relative_to(labels).with_suffix(''): path for path in list_files(labels, ['.txt'])}
    stems = [picture.relative_to(images).with_suffix('') for picture in pictures]
    known = set(stems)
    if len(known) < len(stems):
        twice = Counter(stems).most_common(1)[0][0]
        raise UserError(
            f'{images} has several images called {twice}, and one label file for them; rename them'
        )
    alone = [path for stem, path in files.items() if stem not in known and path.name != 'classes.txt']
    if alone:
        raise UserError(
            f'there is no image in {images} for {alone[0]} ({len(alone)} such files); put it there'
        )
    return [files.get(stem) for stem in stems]


if __name__ == '__main__':
    sys.exit(run_tool(main, resume='nothing was written'))
