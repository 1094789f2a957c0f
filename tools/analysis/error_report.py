"""Say what kinds of errors a COCO result file holds, as one HTML file with pictures."""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from atss_ext.cli.errors import note, run_tool
from atss_ext.cli.targets import check_targets, writing
from atss_ext.datasets.annotation_checks.images import image_paths
from atss_ext.datasets.checks import read_coco
from atss_ext.errors import UserError
from atss_ext.evaluation.coco.result_file import read_results
from atss_ext.evaluation.errors import ErrorReport, error_report, figures
from atss_ext.evaluation.errors.figures import wrong_total
from atss_ext.visualization.error_page import error_page


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('results', help='COCO result file: a JSON list of detections with boxes')
    parser.add_argument('--ann', required=True, help='annotation file of COCO, LVIS or CODA')
    parser.add_argument('--out', required=True, help='HTML file to write')
    parser.add_argument('--images', help='folder of the pictures, to show the worst images')
    parser.add_argument('--iou', type=float, default=0.5, help='IoU from which an object is found')
    parser.add_argument('--score', type=float, default=0.05, help='detections below are no errors')
    parser.add_argument('--worst', type=int, default=12, help='how many of the worst images are shown')
    parser.add_argument('--json', help='file to write the figures to')
    args = parser.parse_args(argv)
    if not 0 < args.iou <= 1:
        raise UserError(f'--iou is {args.iou}; it must be above 0 and at most 1, such as 0.5')
    if not math.isfinite(args.score):
        raise UserError(f'--score is {args.score}; it must be a finite number, such as 0.05')
    if not 0 <= args.worst <= 100:
        raise UserError(f'--worst is {args.worst}; it must be between 0 and 100')
    if args.images and not Path(args.images).is_dir():
        raise UserError(f'image folder {args.images} does not exist; correct --images, or leave it out')
    check_outputs(args, [args.results, args.ann])
    return args


def check_outputs(args: argparse.Namespace, read: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse outputs that cannot be written, that are read, or that are one file."""
    check_targets({'--out': args.out, '--json': args.json}, read)


def summary(report: ErrorReport) -> str:
    """The report in a few lines."""
    values = figures(report)
    objects, detections = values['objects'], values['detections']
    kinds = ', '.join(
        f'{name} {detections[name]}'
        for name in ('duplicate', 'confused', 'localisation', 'both', 'background')
    )
    return (
        f'{objects["total"]} objects: {objects["found"]} found, {objects["confused"]} confused, '
        f'{objects["localisation"]} mislocated, {objects["missed"]} missed\n'
        f'{detections["total"]} detections: {detections["correct"]} correct, '
        f'{wrong_total(detections)} wrong ({kinds})'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report and say what is in it."""
    args = parse_args(argv)
    content = read_coco(args.ann)
    check_outputs(args, image_paths(content, Path(args.images) if args.images else None))
    report = error_report(
        content,
        read_results(args.results),
        iou=args.iou,
        score=args.score,
        worst=args.worst,
        ann_file=args.ann,
        result_file=args.results,
    )
    page, notes = error_page(report, args.results, args.images)
    with writing(args.out) as file:
        file.write(page)
    if args.json:
        with writing(args.json) as file:
            file.write(json.dumps(figures(report), indent=1, ensure_ascii=False) + '\n')
    print(summary(report))
    print(f'written: {args.out} ({len(page.encode()) / 1e6:.1f} MB)')
    for sentence in (*report.notes, *notes):
        note(sentence)


if __name__ == '__main__':
    sys.exit(run_tool(main))
