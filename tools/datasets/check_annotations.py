"""Says what is wrong with a COCO, LVIS or CODA annotation file; exits with 1 on errors.

python tools/datasets/check_annotations.py instances_val2017.json --images data/coco/val2017
python tools/datasets/check_annotations.py data/coda/corner_case.json --kind coda --json report.json
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from _converting import progress, write_json

from atss_ext.cli.errors import note, run_tool
from atss_ext.cli.targets import check_targets
from atss_ext.datasets.annotation_checks import Report, check_file, read_annotations
from atss_ext.datasets.annotation_checks.images import image_paths

WIDTH = 110
LARGE = 50_000_000
"""From this size on a file takes seconds, bytes."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Say what is wrong with an annotation file.')
    parser.add_argument('file', type=Path, help='a JSON in the format of COCO, LVIS or CODA')
    parser.add_argument(
        '--images', type=Path, metavar='DIR', help='look for the images there, and at their sizes'
    )
    parser.add_argument(
        '--kind', choices=('coco', 'lvis', 'coda'), help='what it is meant to be; else by its content'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report there as well')
    return parser.parse_args(argv)


def format_report(report: Report, file: Path) -> str:
    """The report as a table for people."""
    counts = ', '.join(f'{what}: {count:,}' for what, count in report.counts.items())
    lines = [f'{file} ({report.kind.upper()}): {counts}']
    if report.findings:
        lines += ['', f'{"":7}  {"count":>9}  what']
    for finding in report.findings:
        examples = ', '.join(map(str, finding.examples))
        more = ', ...' if finding.count > len(finding.examples) else ''
        text = f'{finding.message} [{finding.code}]' + (f': {examples}{more}' if examples else '')
        head = f'{finding.severity:7}  {finding.count:9,}  '
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=head, subsequent_indent=' ' * len(head), break_on_hyphens=False
        )
    verdict = f'kinds of errors: {report.errors}, kinds of warnings: {report.warnings}'
    return '\n'.join([*lines, '', verdict if report.findings else 'nothing is wrong with it'])


def main(argv: Sequence[str] | None = None) -> int:
    """Check a file and print what was found; returns how many kinds of errors there are."""
    args = parse_args(argv)
    check_targets({'--json': args.json}, [args.file])
    if args.file.is_file() and args.file.stat().st_size >= LARGE:
        note(f'{args.file} has {args.file.stat().st_size / 1e6:.0f} MB; that takes a while')
    content = read_annotations(args.file)
    check_targets({'--json': args.json}, image_paths(content, args.images))
    report = check_file(
        args.file, content, args.kind, args.images, progress('images') if args.images else None
    )
    print(format_report(report, args.file))
    if args.json:
        write_json(args.json, {'file': str(args.file), **report.as_dict()})
    return report.errors


if __name__ == '__main__':
    errors: list[int] = []
    code = run_tool(lambda: errors.append(main()))
    sys.exit(code or int(bool(errors and errors[0])))
