"""Scores a result file in COCO's format, from anywhere, with the code of the metrics.

python tools/evaluate.py results.json --ann instances_val2017.json --kind coco --metric bbox segm
python tools/evaluate.py results.json --ann lvis_v1_minival.json --kind lvis --fixed
python tools/evaluate.py results.json --ann corner_case.json --kind coda
python tools/evaluate.py results.json --ann any_name.json --kind coda --layout 2022
python tools/evaluate.py results.json --ann any.json --kind recall --limits 10 100 --json figures.json

The file is a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"} with the ids of the
annotation file, and "segmentation" for masks, as tools/test.py --out writes it. In CODA rows
with a "name" are compared by name, and ids that the file does not have are of other classes. Where names do
not count (recall, and CODA's class-agnostic files), rows need neither.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

from mmengine.registry import init_default_scope

import atss_ext  # noqa: F401 - lets mmdet run without a compiled mmcv, and fills the registries
from atss_ext.cli.errors import note, run_tool
from atss_ext.cli.targets import check_target, writing
from atss_ext.datasets.checks import read_coco
from atss_ext.errors import UserError
from atss_ext.evaluation.backend import MISSING, Backend, check_backend, fast_available
from atss_ext.evaluation.coco.figures import coco_figures, recall_figures
from atss_ext.evaluation.coco.result_file import Results, check_results, found_of, read_results
from atss_ext.evaluation.coco.table import read_truth
from atss_ext.evaluation.coda import Layout, check_coda_results, coda_figures, named_found, read_coda
from atss_ext.evaluation.lvis import LvisTruth, from_coco, lvis_figures
from atss_ext.evaluation.progress import scoring
from atss_ext.evaluation.samples import classes_of

Figures = dict[str, float]
KINDS = ('coco', 'lvis', 'coda', 'recall')


class Scoring(NamedTuple):
    """Some figures that are still to be computed.

    Attributes:
        how: what tells them from the others of the command, such as 'bbox, fixed'.
        prefix: of their names.
        images: that count.
        detections: that are compared.
        figures: computes them.
    """

    how: str
    prefix: str
    images: int
    detections: int
    figures: Callable[[], Figures]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Score a result file in COCO's format.")
    parser.add_argument('results', type=Path, help='a JSON list of detections')
    parser.add_argument('--ann', type=Path, required=True, metavar='FILE', help='the annotations')
    parser.add_argument(
        '--kind', choices=KINDS, default='coco', help='whose figures; recall is class-agnostic'
    )
    parser.add_argument(
        '--metric', nargs='+', choices=('bbox', 'segm'), default=['bbox'], help='boxes, masks'
    )
    parser.add_argument('--fixed', action='store_true', help='LVIS: fixed AP too, 10,000 detections a class')
    parser.add_argument('--limits', nargs='+', type=int, help='recall: detections an image; 100 by default')
    parser.add_argument(
        '--layout', choices=get_args(Layout), help="CODA: which figures; else the file's name tells"
    )
    parser.add_argument(
        '--backend',
        choices=('fast', 'reference'),
        help='hotcoco, or the slower pycocotools (lvis: our own); else the faster one that there is',
    )
    parser.add_argument(
        '--classes',
        metavar='DATASET',
        help='score only the classes of this dataset, such as mmdet.CocoDataset',
    )
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the figures there as well')
    return parser.parse_args(argv)


def backend_of(args: argparse.Namespace) -> Backend:
    """The back-end to use; says where the fast one is missing.

    Raises:
        UserError: the fast one is demanded and missing.
    """
    if args.backend is None and not fast_available():
        note(MISSING)
        return 'reference'
    try:
        check_backend(args.backend)
    except ValueError as error:
        raise UserError(f'--backend {args.backend}: {error}') from None
    chosen: Backend = args.backend or 'fast'
    return chosen


def check_options(args: argparse.Namespace) -> tuple[str, ...] | None:
    """The classes to score, None for all.

    Raises:
        UserError: options that do not go together, or an unknown dataset.
    """
    if args.fixed and args.kind != 'lvis':
        raise UserError(f'--fixed: fixed AP is of LVIS, but --kind is {args.kind}; leave one of both away')
    if args.layout and args.kind != 'coda':
        raise UserError(f'--layout: layouts are of CODA, but --kind is {args.kind}; leave one of both away')
    if args.limits and args.kind != 'recall':
        raise UserError(f'--limits: limits are of recall, but --kind is {args.kind}; leave one of both away')
    if args.limits and min(args.limits) < 1:
        raise UserError(f'--limits {min(args.limits)}: it must be at least 1')
    if args.classes is None:
        return None
    if args.kind == 'coda':
        raise UserError("--classes: CODA's figures are of its own classes; leave it away")
    init_default_scope('mmdet')
    try:
        return classes_of(args.classes)
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f'--classes {args.classes}: no registered dataset with classes has this name; write one such as '
            'mmdet.CocoDataset or atss_ext.CodaDataset'
        ) from None


def score_coco(
    args: argparse.Namespace, results: Results, classes: Sequence[str] | None, backend: Backend
) -> Iterator[Scoring]:
    """COCO's twelve figures."""
    masks = 'segm' in args.metric
    truth = read_truth(args.ann, classes, masks)
    check_results(
        results, args.results, truth.image_numbers, _categories(args.ann), str(args.ann), args.metric
    )
    for metric in args.metric:
        found = found_of(results, truth, truth.category_numbers, metric == 'segm')
        figures = partial(coco_figures, truth, found, metric, backend=backend)
        yield Scoring(metric, f'{metric}_', len(truth.sizes), len(found), figures)


def score_recall(
    args: argparse.Namespace, results: Results, classes: Sequence[str] | None, backend: Backend
) -> Iterator[Scoring]:
    """Class-agnostic recall."""
    truth = read_truth(args.ann, classes, 'segm' in args.metric, agnostic=True)
    check_results(results, args.results, truth.image_numbers, None, str(args.ann), args.metric)
    for metric in args.metric:
        found = found_of(results, truth, None, metric == 'segm')
        figures = partial(recall_figures, truth, found, metric, args.limits or (100,), backend)
        yield Scoring(metric, f'{metric}_', len(truth.sizes), len(found), figures)


def score_lvis(
    args: argparse.Namespace, results: Results, classes: Sequence[str] | None, backend: Backend
) -> Iterator[Scoring]:
    """LVIS AP, and fixed AP."""
    truth = LvisTruth.read(str(args.ann), classes, 'segm' in args.metric)
    check_results(results, args.results, truth.image_rows, _categories(args.ann), str(args.ann), args.metric)
    for metric in args.metric:
        found = from_coco(results, truth, metric)
        count = sum(len(one.scores) for one in found)
        for protocol in ('standard', 'fixed') if args.fixed else ('standard',):
            prefix = f'{metric}_fixed_' if protocol == 'fixed' else f'{metric}_'
            figures = partial(lvis_figures, truth, found, protocol, backend=backend)
            yield Scoring(f'{metric}, {protocol}', prefix, len(truth.image_rows), count, figures)


def score_coda(
    args: argparse.Namespace, results: Results, classes: Sequence[str] | None, backend: Backend
) -> Iterator[Scoring]:
    """CODA's figures, by name: a row's own, or that of its category."""
    masks = 'segm' in args.metric
    truth = read_coda(args.ann, args.layout, masks)
    unknown = check_coda_results(results, args.results, truth, args.metric)
    if unknown:
        note(f'{unknown:,} detections have ids that {args.ann} does not have; they count as other classes')
    found = named_found(results, truth, masks)
    for metric in args.metric:
        figures = partial(coda_figures, truth, found, metric, backend)
        yield Scoring(metric, f'{metric}_', len(truth.sizes), len(found), figures)


def _categories(ann_file: Path) -> dict[Any, str]:
    return {one['id']: one['name'] for one in read_coco(ann_file).get('categories', [])}


def _say(line: str) -> None:
    """Progress goes to stderr: the figures alone are the output."""
    print(line, file=sys.stderr, flush=True)


SCORES = {'coco': score_coco, 'lvis': score_lvis, 'coda': score_coda, 'recall': score_recall}


def main(argv: Sequence[str] | None = None) -> None:
    """Score a file, print the figures, write them."""
    args = parse_args(argv)
    classes = check_options(args)
    check_target('--json', args.json, args.results, args.ann)
    results, backend = read_results(args.results), backend_of(args)
    figures: Figures = {}
    for one in SCORES[args.kind](args, results, classes, backend):
        with scoring(args.kind, one.images, one.detections, one.how, _say):
            figures |= {f'{one.prefix}{name}': value for name, value in one.figures().items()}
    for name, value in figures.items():
        print(f'{name:26} {value:8.4f}')
    if args.json:
        with writing(args.json) as file:
            file.write(json.dumps(figures, indent=1) + '\n')


if __name__ == '__main__':
    sys.exit(run_tool(main))
