"""Converts annotations of Pascal VOC (a folder of XML files) to one COCO file.

python tools/datasets/voc_to_coco.py VOC2012/Annotations voc2012.json --split VOC2012/ImageSets/Main/train.txt
python tools/datasets/voc_to_coco.py labels out.json --images images --names cat,dog --convention corners

Coordinates. VOC counts pixels from 1 and includes the last one: a box over the whole image is (1, 1, W, H),
and `--convention pixels`, the default, makes it [0, 0, W, H]. Many labelling tools write the corners of
the box, from 0, instead: `--convention corners` makes [xmin, ymin, xmax - xmin, ymax - ymin].

Difficult objects. VOC does not count them in its evaluation. COCO's only field of that effect is `iscrowd`
(`ignore` is overwritten by pycocotools and removes the object in mmdet), so that `--difficult crowd`, the
default, sets it: nothing is gained by finding it nor lost, though COCO divides the overlap with a crowd by
the detection's area alone. `keep` makes them ordinary objects, `drop` leaves them out. The flag itself is
written along.

Ids count from 1: images in natural order of the XML files' names, annotations in order of the files,
categories as in --names, or else in alphabetical order.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

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
from _voc_xml import VocImage, VocObject, read_voc

from atss_ext.cli.errors import run_tool
from atss_ext.cli.targets import check_targets
from atss_ext.errors import UserError


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Convert annotations of Pascal VOC to COCO.')
    parser.add_argument('annotations', type=Path, help='folder of the XML files')
    parser.add_argument('out', type=Path, help='the COCO file to write')
    parser.add_argument(
        '--images', type=Path, metavar='DIR', help='check the images there, and take missing sizes'
    )
    parser.add_argument('--split', type=Path, metavar='FILE', help='a list of names, one a line: only these')
    parser.add_argument('--names', help='class names with commas between, or a file of them')
    parser.add_argument(
        '--convention', choices=('pixels', 'corners'), default='pixels', help='of coordinates'
    )
    parser.add_argument(
        '--difficult', choices=('crowd', 'keep', 'drop'), default='crowd', help='difficult objects'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert a folder."""
    args = parse_args(argv)
    listed = list_files(args.annotations, ['.xml'])
    check_targets({'out': args.out}, filter(None, (*listed, args.split, names_file(args.names))))
    paths = _wanted(listed, args.annotations, args.split)
    names = names_option(args.names) if args.names else None
    say = progress('files')
    read: list[VocImage] = []
    for path in paths:
        read.append(read_voc(path))
        say(len(read), len(paths))
    content = convert(paths, read, names, args)
    if args.images:
        check_targets({'out': args.out}, (args.images / image['file_name'] for image in content['images']))
    write_json(args.out, content)
    note_findings(content)
    crowds = sum(annotation['iscrowd'] for annotation in content['annotations'])
    print(
        f'{len(paths)} images, {len(content["annotations"])} annotations ({crowds} of them difficult, as '
        f'crowds) and {len(content["categories"])} categories lie in {args.out}'
    )


def convert(
    paths: Sequence[Path], read: Sequence[VocImage], names: list[str] | None, args: argparse.Namespace
) -> dict[str, Any]:
    """Bring what was read into COCO's form.

    Raises:
        UserError: a class is not among the names, a box is outside of its convention, or an image is missing.
    """
    found = sorted({thing.name for image in read for thing in image.objects})
    known = categories(names or found, '--names' if names else str(args.annotations))
    ids = {category['name']: category['id'] for category in known}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (path, image) in enumerate(zip(paths, read, strict=True), start=1):
        name, size = _place(path, image, args.images)
        images.append({'id': number, 'file_name': name, 'width': size[0], 'height': size[1]})
        for thing in image.objects:
            if thing.name not in ids:
                raise UserError(
                    f"{path}, line {thing.line}: class '{thing.name}' is not among --names "
                    f'{", ".join(ids)}; add it'
                )
            difficult = bool(thing.flags.get('difficult'))
            if difficult and args.difficult == 'drop':
                continue
            keys = {'id': len(annotations) + 1, 'image_id': number, 'category_id': ids[thing.name]}
            box = to_box(path, thing, size, args.convention)
            crowd = int(difficult and args.difficult == 'crowd')
            area = round(box[2] * box[3], 4)
            annotations.append({**keys, 'bbox': box, 'area': area, 'iscrowd': crowd, **thing.flags})
    return {'images': images, 'annotations': annotations, 'categories': known}


def to_box(path: Path, thing: VocObject, size: tuple[int, int], convention: str) -> list[float]:
    """An object's box as COCO's [x, y, width, height] in pixels.

    Args:
        path: the annotation file, for the messages.
        thing: the object.
        size: width and height of the image.
        convention: 'pixels' or 'corners'.

    Raises:
        UserError: a coordinate is below 1 where VOC counts from 1, a box between corners is empty, or the
            box lies outside of the image.
    """
    left, top, right, bottom = thing.corners
    if convention == 'pixels':
        if min(left, top) < 1:
            raise UserError(
                f'{path}, line {thing.line}: xmin, ymin are {left:g}, {top:g}, but VOC counts from 1; '
                'convert with --convention corners'
            )
        box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
    else:
        box = [left, top, right - left, bottom - top]
        if min(box[2:]) <= 0:
            raise UserError(
                f'{path}, line {thing.line}: the box has no width or no height; correct or remove it'
            )
    if box[0] >= size[0] or box[1] >= size[1] or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        raise UserError(
            f'{path}, line {thing.line}: the box lies outside of its image of {size[0]} x {size[1]} pixels; '
            'correct or remove it'
        )
    return [int(value) if value == int(value) else round(value, 4) for value in box]


def _wanted(paths: list[Path], folder: Path, split: Path | None) -> list[Path]:
    if not paths:
        raise UserError(f'{folder} has no XML file; name the folder of the annotations')
    if split is None:
        return paths
    if not split.is_file():
        raise UserError(f'split file {split} does not exist; correct the path')
    by_name = {path.relative_to(folder).with_suffix('').as_posix(): path for path in paths}
    wanted: set[str] = set()
    for line, text in enumerate(read_lines(split), start=1):
        if text.strip() in by_name:  # a name may have blanks
            wanted.add(text.strip())
            continue
        words = text.split()
        if not words or (len(words) > 1 and words[-1] == '-1'):  # a list of one class: not in it
            continue
        if words[0] not in by_name:
            raise UserError(f'{split}, line {line}: there is no {words[0]}.xml in {folder}; correct the list')
        wanted.add(words[0])
    return [path for name, path in by_name.items() if name in wanted]


def _place(path: Path, image: VocImage, folder: Path | None) -> tuple[str, tuple[int, int]]:
    """The image's file name and size, from its annotation and, where a folder is given, its file."""
    name = (image.file_name or '').replace('\\', '/')
    if not name and folder is None:
        raise UserError(f'{path} has no <filename>; add it, or give the folder of the images with --images')
    leaves = '..' in PureWindowsPath(name).parts or PureWindowsPath(name).anchor != ''
    if folder is None:
        if leaves:
            raise UserError(
                f"{path} names the image '{name}', a path out of the image folder; correct <filename>, or "
                'give the folder with --images'
            )
        if image.size is None:
            raise UserError(f'{path} has no <size>; add it, or give the folder of the images with --images')
        return name, image.size
    candidates = ['' if leaves else name, *(path.stem + suffix for suffix in IMAGE_SUFFIXES)]
    name = next((item for item in candidates if item and (folder / item).is_file()), '')
    if not name:
        raise UserError(
            f'the image of {path} ({candidates[0] or candidates[1]}) is not in {folder}; put it there'
        )
    size = image_size(folder / name)
    if image.size is not None and image.size != size:
        raise UserError(
            f'{path} says {image.size[0]} x {image.size[1]} pixels, but {folder / name} has '
            f'{size[0]} x {size[1]} (upright by its EXIF); correct <size>'
        )
    return name, size


if __name__ == '__main__':
    sys.exit(run_tool(main, resume='nothing was written'))
