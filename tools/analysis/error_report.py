"""Say what kinds of errors a COCO result file holds, as one HTML file with pictures."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from atss_ext.cli.errors import UserError, note, run_tool
from atss_ext.cli.targets import check_target
from atss_ext.datasets.checks import read_coco
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
    for option, path in (('--out', args.out), ('--json', args.json)):
        check_target(option, path, args.results, args.ann)
    return args


def write(path: str, text: str) -> None:
    """Write a text file, and make its folder."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding='utf-8')
    except OSError as error:
        raise UserError(f'{path} cannot be written ({error.strerror}); choose another place') from error


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
    report = error_report(
        read_coco(args.ann),
        read_results(args.results),
        iou=args.iou,
        score=args.score,
        worst=args.worst,
        ann_file=args.ann,
        result_file=args.results,
    )
    page, notes = error_page(report, args.results, args.images)
    write(args.out, page)
    if args.json:
        write(args.json, json.dumps(figures(report), indent=1, ensure_ascii=False) + '\n')
    print(summary(report))
    print(f'written: {args.out} ({len(page.encode()) / 1e6:.1f} MB)')
    for sentence in (*report.notes, *notes):
        note(sentence)


if __name__ == '__main__':
    sys.exit(run_tool(main))
