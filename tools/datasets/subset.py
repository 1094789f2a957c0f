"""Takes some images out of a COCO or LVIS file so that every category keeps its share of images.

python tools/datasets/subset.py instances_train2017.json train_10.json --fraction 0.1
python tools/datasets/subset.py lvis_v1_train.json lvis_5000.json --images 5000 --min-per-category 5 --seed 1
python tools/datasets/subset.py all.json val.json --fraction 0.2 --rest train.json

The method is iterative stratification (Sechidis et al. 2011). Ids, order and every field stay as they are,
also the categories that got no image. OUT.report.json says how many images of each category there were and
are, and which categories got none. LVIS's `image_count` and `frequency` stay those of the whole.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _converting import write_json
from _stratify import stratify

from atss_ext.cli.errors import run_tool
from atss_ext.cli.targets import check_targets
from atss_ext.datasets.annotation_checks import read_annotations
from atss_ext.datasets.annotation_checks.table import Table, read_table
from atss_ext.errors import UserError


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Take a stratified part of a COCO or LVIS file.')
    parser.add_argument('file', type=Path, help='the annotation file')
    parser.add_argument('out', type=Path, help='the annotation file to write')
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument('--images', type=int, metavar='N', help='images to take')
    size.add_argument(
        '--fraction', type=float, metavar='F', help='share of the images to take, above 0, up to 1'
    )
    parser.add_argument(
        '--min-per-category', type=int, default=0, metavar='K', help='images a category should get at least'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--rest', type=Path, metavar='FILE', help='write the images that were not taken there'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the part and its report."""
    args = parse_args(argv)
    report_file = Path(f'{args.out}.report.json')
    check_targets({'out': args.out, 'the report': report_file, '--rest': args.rest}, [args.file])
    content = read_annotations(args.file)
    table, findings = read_table(content)
    faults = [one for one in findings if one.severity == 'error']
    if faults:
        first = f', as at {faults[0].examples[0]}' if faults[0].examples else ''
        raise UserError(
            f'{args.file} has faults ({faults[0].message}{first}); '
            'tools/datasets/check_annotations.py lists them'
        )
    count = _count(len(table.images), args)
    labels = image_labels(table)
    rows = stratify(labels, count, args.seed, args.min_per_category)
    part, report = take(content, table, rows), make_report(table, labels, rows, args)
    write_json(args.out, part)
    write_json(report_file, report)
    if args.rest is not None:
        write_json(args.rest, take(content, table, sorted(set(range(len(labels))) - set(rows))))
    print(
        f'{len(rows)} of {len(labels)} images and {len(part["annotations"])} of {len(table.annotations)} '
        f'annotations lie in {args.out}'
    )
    _say(report, args)


def image_labels(table: Table) -> list[frozenset[int]]:
    """The rows of the categories that each image shows, M sets."""
    shown: list[set[int]] = [set() for _ in table.images]
    for image, category in zip(table.image_rows.tolist(), table.category_rows.tolist(), strict=True):
        shown[image].add(category)
    return [frozenset(rows) for rows in shown]


def take(content: dict[str, Any], table: Table, rows: Sequence[int]) -> dict[str, Any]:
    """The content with the images of these rows and their annotations alone, all else as it is."""
    chosen = set(rows)
    annotations = [
        annotation
        for annotation, image in zip(table.annotations, table.image_rows.tolist(), strict=True)
        if image in chosen
    ]
    return {**content, 'images': [table.images[row] for row in rows], 'annotations': annotations}


def make_report(
    table: Table, labels: Sequence[frozenset[int]], rows: Sequence[int], args: argparse.Namespace
) -> dict[str, Any]:
    """How many images of each category there were and are, and which got none or fewer than wished for."""
    before, after = [0] * len(table.categories), [0] * len(table.categories)
    for shown in labels:
        for row in shown:
            before[row] += 1
    for index in rows:
        for row in labels[index]:
            after[row] += 1
    entries = [
        {'id': key, 'name': category.get('name'), 'images_before': before[row], 'images': after[row]}
        for row, (key, category) in enumerate(zip(table.category_ids, table.categories, strict=True))
    ]
    few = [e for e in entries if e['images'] < min(args.min_per_category, e['images_before'])]
    return {
        'file': str(args.file),
        'seed': args.seed,
        'images': len(rows),
        'without_images': [e['id'] for e in entries if e['images_before'] and not e['images']],
        'below_minimum': [e['id'] for e in few],
        'categories': entries,
    }


def _say(report: dict[str, Any], args: argparse.Namespace) -> None:
    names = {entry['id']: entry['name'] for entry in report['categories']}
    for key, what in (
        ('without_images', 'got no image'),
        ('below_minimum', f'got fewer than {args.min_per_category}'),
    ):
        lost = [str(names[number]) for number in report[key]]
        if lost:
            more = f' and {len(lost) - 10} more' if len(lost) > 10 else ''
            print(f'{len(lost)} categories {what}: {", ".join(lost[:10])}{more}')


def _count(available: int, args: argparse.Namespace) -> int:
    if args.min_per_category < 0:
        raise UserError(f'--min-per-category is {args.min_per_category}; it has to be 0 or more')
    if args.fraction is not None:
        if not 0 < args.fraction <= 1:
            raise UserError(f'--fraction is {args.fraction:g}; it has to be above 0 and up to 1')
        return max(1, round(args.fraction * available))
    if not 1 <= args.images <= available:
        raise UserError(f'--images is {args.images}; {args.file} has 1 to {available} images to take')
    return args.images


if __name__ == '__main__':
    sys.exit(run_tool(main, resume='nothing was written'))
