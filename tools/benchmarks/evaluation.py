"""Times and weighs the evaluation against pycocotools, faster-coco-eval, hotcoco and lvis-api.

    python tools/benchmarks/evaluation.py --json evaluation.json --markdown docs/evaluation.md

All sides run once each, in one process, on the same synthetic sets: a file of annotations on disk and results
in memory, to figures. The memory is the peak above what the process held before. What is not installed is
left out, and said. `--quick` tries the tool on tiny sets.
"""

import argparse
import contextlib
import ctypes
import importlib.metadata
import io
import json
import logging
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _evaluation_sets import Synthetic, synthetic
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import atss_ext  # noqa: F401 - lets mmdet run without a compiled mmcv
from atss_ext.evaluation.backend import Backend, fast_available
from atss_ext.evaluation.coco import coco_figures, read_truth
from atss_ext.evaluation.coco.result_file import found_of
from atss_ext.evaluation.lvis import LvisTruth, from_coco, lvis_figures
from atss_ext.evaluation.lvis.detections import of_boxes

Figures = dict[str, float]
SETS = ('boxes', 'masks', 'lvis', 'lvis-val')
MARKS = ('<!-- figures: begin -->', '<!-- figures: end -->')
COCO_NAMES = (
    'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR@1', 'AR@10', 'AR@100', 'ARs@100', 'ARm@100', 'ARl@100',
)  # fmt: skip


@dataclass
class Row:
    """One side's work.

    Attributes:
        work: which set.
        side: who does it.
        seconds: of one run.
        mb: peak extra memory, 10^6 bytes.
        ratio: the reference's time over this one's, None without a reference of this size.
        difference: the largest one of the figures to the reference's, likewise.
    """

    work: str
    side: str
    seconds: float
    mb: float
    ratio: float | None = None
    difference: float | None = None


def pycocotools_side(ann: Path, rows: list[dict[str, Any]], iou_type: str) -> Figures:
    """COCO's own evaluation."""
    goals = COCO(str(ann))
    scorer = COCOeval(goals, goals.loadRes(rows), iou_type)
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    return dict(zip(COCO_NAMES, map(float, scorer.stats), strict=True))


def faster_side(ann: Path, rows: list[dict[str, Any]], iou_type: str) -> Figures:
    """faster-coco-eval."""
    from faster_coco_eval import COCO as FasterCOCO
    from faster_coco_eval import COCOeval_faster

    goals = FasterCOCO(str(ann))
    scorer = COCOeval_faster(goals, goals.loadRes(rows), iou_type, print_function=lambda *some: None)
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    return dict(zip(COCO_NAMES, map(float, scorer.stats[:12]), strict=True))


def hotcoco_side(ann: Path, rows: list[dict[str, Any]], iou_type: str) -> Figures:
    """hotcoco as pycocotools is used."""
    import hotcoco

    goals = hotcoco.COCO(str(ann))
    scorer = hotcoco.COCOeval(goals, goals.load_res(rows), iou_type)
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    return dict(zip(COCO_NAMES, map(float, scorer.stats), strict=True))


def our_side(ann: Path, rows: list[dict[str, Any]], iou_type: str, backend: Backend) -> Figures:
    """A back-end of CocoMetric."""
    truth = read_truth(ann, masks=iou_type == 'segm')
    found = found_of(rows, truth, truth.category_numbers, iou_type == 'segm')
    return coco_figures(truth, found, iou_type, backend=backend)


def lvis_api_side(ann: Path, rows: list[dict[str, Any]], iou_type: str) -> Figures:
    """LVIS's own evaluation."""
    from lvis import LVIS, LVISEval, LVISResults

    # Its last release asks for a name that NumPy has dropped since.
    vars(np)['float'] = float

    goals = LVIS(str(ann))
    scorer = LVISEval(goals, LVISResults(goals, rows), iou_type)
    scorer.run()
    return {name: float(value) for name, value in scorer.results.items()}


def hotcoco_lvis_side(ann: Path, rows: Any, iou_type: str) -> Figures:
    """hotcoco's LVIS mode."""
    import hotcoco

    goals = hotcoco.COCO(str(ann))
    scorer = hotcoco.LVISeval(goals, hotcoco.LVISResults(goals, rows), iou_type)
    scorer.run()
    return {name: float(value) for name, value in scorer.get_results().items()}


def our_lvis_side(ann: Path, rows: list[dict[str, Any]], iou_type: str, backend: Backend) -> Figures:
    """A back-end of LvisMetric."""
    truth = LvisTruth.read(str(ann), masks=iou_type == 'segm')
    return lvis_figures(truth, from_coco(rows, truth, iou_type), backend=backend)


def our_lvis_columns(ann: Path, one: Synthetic, backend: Backend) -> Figures:
    """The same of boxes in columns, as LvisMetric keeps the detections of each image."""
    truth = LvisTruth.read(str(ann), masks=False)
    ends = np.flatnonzero(np.diff(one.images)) + 1
    parts = np.split(np.arange(len(one.images)), ends)
    rows = [
        of_boxes(
            truth.image_rows[int(one.images[part[0]])],
            one.categories[part] - 1,
            one.scores[part],
            one.boxes[part],
        )
        for part in parts
    ]
    return lvis_figures(truth, rows, backend=backend)


def measure(work: str, side: str, call: Callable[[], Figures]) -> tuple[Row, Figures]:
    """Run once; time it and weigh its peak."""
    print(f'{work}: {side} ...', flush=True)
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')
    before = _status('VmRSS')
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        figures = call()
    seconds = time.perf_counter() - start
    row = Row(work, side, seconds, max(_status('VmHWM') - before, 0) / 1e6)
    print(f'{work}: {side} {seconds:.2f} s, {row.mb:,.0f} MB', flush=True)
    return row, figures


def _status(key: str) -> int:
    found = re.search(rf'^{key}:\s+(\d+) kB', Path('/proc/self/status').read_text(), flags=re.MULTILINE)
    if found is None:
        raise RuntimeError(f'/proc/self/status has no {key}: memory can be measured on Linux only')
    return int(found.group(1)) * 1024


def compare(work: str, one: Synthetic, iou_type: str, sides: Mapping[str, Any], folder: Path) -> list[Row]:
    """Run all sides, the reference first; sides whose library is missing are left out."""
    ann = folder / 'ann.json'
    ann.write_text(json.dumps(one.content), encoding='utf-8')
    rows: list[Row] = []
    wanted: Figures = {}
    for side, call in sides.items():
        results = one.results(iou_type == 'segm')  # a fresh list: some sides write into it
        work_of_side = partial(call, ann, results, iou_type)
        try:
            row, figures = measure(work, side, work_of_side)
        except ImportError as error:
            print(f'left out: {side} ({error})', flush=True)
            continue
        if not rows:
            wanted = figures
        row.ratio = rows[0].seconds / row.seconds if rows else 1.0
        row.difference = max(abs(figures[name] - wanted[name]) for name in wanted if name in figures)
        rows.append(row)
    return rows


def run(args: argparse.Namespace, folder: Path) -> list[Row]:
    """All sets."""
    few = 100 if args.quick else 1
    coco = {'pycocotools': pycocotools_side, 'faster-coco-eval': faster_side, 'hotcoco': hotcoco_side,
            **_both('CocoMetric', our_side)}  # fmt: skip
    lvis = {'lvis-api': lvis_api_side, 'hotcoco': hotcoco_lvis_side, **_both('LvisMetric', our_lvis_side)}
    rows: list[Row] = []
    for name, iou_type, images in (('boxes', 'bbox', 5000 // few), ('masks', 'segm', 1000 // few)):
        if name in args.sets:
            one = synthetic(images, 80, 7, 100)
            work = f'COCO {name}, {images:,} images, 100 detections each'
            rows += compare(work, one, iou_type, coco, folder)
    for count in args.reference_images if 'lvis' in args.sets else ():
        images = max(count // few, 1)
        one = synthetic(images, 1203, 12, args.detections, federated=True)
        work = f'LVIS boxes, {images:,} images, {args.detections} detections each'
        rows += compare(work, one, 'bbox', lvis, folder)
    if 'lvis-val' in args.sets:
        images = 19_800 // few
        rows += large_lvis(synthetic(images, 1203, 12, 300, federated=True), images, folder)
    return rows


def _both(name: str, call: Callable[..., Figures]) -> dict[str, Callable[..., Figures]]:
    """Our two back-ends; the fast one only where its library is."""
    backends: list[Backend] = ['fast', 'reference'] if fast_available() else ['reference']
    return {f'{name}, {backend}': partial(call, backend=backend) for backend in backends}


def large_lvis(one: Synthetic, images: int, folder: Path) -> list[Row]:
    """LVIS val's size from columns: a list of 6 million dicts would weigh more than the evaluation."""
    ann, work = folder / 'ann.json', f'LVIS boxes, {images:,} images, 300 detections each, from columns'
    ann.write_text(json.dumps(one.content), encoding='utf-8')
    table = np.column_stack([one.images, one.boxes, one.scores, one.categories]).astype(np.float64)
    sides: dict[str, Callable[[], Figures]] = {
        'hotcoco': lambda: hotcoco_lvis_side(ann, table, 'bbox'),
        **_both('LvisMetric', partial(our_lvis_columns, ann, one)),
    }
    rows: list[Row] = []
    found: dict[str, Figures] = {}
    for side, call in sides.items():
        with contextlib.suppress(ImportError):
            row, found[side] = measure(work, side, call)
            rows.append(row)
    # The one against which all others are measured runs last here: it takes longest.
    wanted = found[rows[-1].side]
    for row in rows:
        row.ratio = rows[-1].seconds / row.seconds
        row.difference = max(abs(found[row.side][name] - wanted[name]) for name in wanted)
    return rows


def markdown(result: Mapping[str, Any]) -> str:
    """The tables of the page."""
    lines = [f'Measured with `{result["command"]}` on {result["machine"]}.', '']
    lines += ['| set | by | seconds | peak MB | ratio | largest difference |', '|---|---|--:|--:|--:|--:|']
    for row in result['rows']:
        ratio = '-' if row['ratio'] is None else f'{row["ratio"]:.1f}x'
        gap = '-' if row['difference'] is None else f'{row["difference"]:.0e}'
        lines.append(
            f'| {row["work"]} | {row["side"]} | {row["seconds"]:.2f} | {row["mb"]:,.0f} | {ratio} | {gap} |'
        )
    versions = ', '.join(f'{name} {version}' for name, version in result['versions'].items())
    return '\n'.join([*lines, '', f'Versions: {versions}.'])


def fill(page: Path, text: str) -> None:
    """Put the tables between the page's marks."""
    content = page.read_text(encoding='utf-8')
    begin, end = (content.index(mark) for mark in MARKS)
    page.write_text(f'{content[:begin]}{MARKS[0]}\n\n{text}\n\n{content[end:]}', encoding='utf-8')


def versions() -> dict[str, str]:
    """Of what takes part."""
    found = {'python': platform.python_version()}
    for name in ('numpy', 'pycocotools', 'faster-coco-eval', 'hotcoco', 'lvis'):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Time and weigh the evaluation.')
    parser.add_argument('--json', type=Path, help='write the rows here')
    parser.add_argument('--markdown', type=Path, help="put the tables between this page's marks")
    parser.add_argument('--quick', action='store_true', help='tiny sets: tries the tool, measures nothing')
    parser.add_argument(
        '--reference-images',
        type=int,
        nargs='+',
        default=[1000],
        help='sizes of LVIS where lvis-api takes part; it is slow, and takes 1.1 GB a thousand images',
    )
    parser.add_argument(
        '--detections', type=int, default=300, help='an image, of LVIS where lvis-api takes part'
    )
    parser.add_argument('--sets', nargs='+', choices=SETS, default=list(SETS), help='only these')
    args = parser.parse_args(argv)
    page = args.markdown
    if page and not (page.is_file() and all(mark in page.read_text(encoding='utf-8') for mark in MARKS)):
        parser.exit(2, f'error: --markdown {page} needs a page with the lines {MARKS[0]} and {MARKS[1]}\n')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, write; returns the exit code."""
    args = parse_args(argv)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        rows = run(args, Path(folder))
    words = ['--quick'] if args.quick else []
    if args.reference_images != [1000]:
        words += ['--reference-images', *map(str, args.reference_images)]
    if args.detections != 300:
        words += ['--detections', str(args.detections)]
    if args.sets != list(SETS):
        words += ['--sets', *args.sets]
    result = {
        'command': ' '.join(['python tools/benchmarks/evaluation.py', *words]),
        'machine': f'{os.cpu_count()} cores ({platform.machine()}), {platform.system()}',
        'versions': versions(),
        'rows': [asdict(row) for row in rows],
    }
    print(markdown(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    if args.markdown:
        fill(args.markdown, markdown(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
