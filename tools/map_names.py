"""Brings the free names of a result file to the categories of an annotation file.

python tools/map_names.py results.json --ann lvis_v1_minival_inserted_image_name.json --out mapped.json
python tools/map_names.py results.json --ann corner_case.json --encoder minilm --out mapped.json
"""

import argparse
import json
import reprlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atss_ext.cli.errors import note, run_tool
from atss_ext.cli.targets import check_target, writing
from atss_ext.errors import UserError
from atss_ext.evaluation.coco.result_file import is_number, read_results
from atss_ext.evaluation.naming import CategoryMapper, read_categories

ENCODERS = {'clip': 'ClipEncoder', 'sentence': 'SentenceEncoder', 'minilm': 'PooledEncoder'}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Bring free names to the categories of a data set.')
    parser.add_argument(
        'results', type=Path, help="COCO results with a 'name' in each, of tools/test.py --out"
    )
    parser.add_argument('--ann', type=Path, required=True, help='annotation file that has the categories')
    parser.add_argument('--out', type=Path, required=True, help='results with its category ids')
    parser.add_argument(
        '--encoder',
        choices=(*ENCODERS, 'none'),
        default='clip',
        help="of names that are no category's and no synonym's; none leaves their detections away",
    )
    parser.add_argument('--model', help="another model of the encoder's kind: of the hub, or a folder")
    parser.add_argument('--template', help="text around a name, such as 'a photo of a {}'")
    parser.add_argument('--device', default='auto')
    parser.add_argument(
        '--top-k', type=int, default=1, help='categories a detection; scores are weighted above 1'
    )
    parser.add_argument('--threshold', type=float, help='cosine that the encoder has to reach')
    parser.add_argument('--encoder-only', action='store_true', help='no matches by words and synonyms')
    parser.add_argument('--cache', type=Path, metavar='DIR', help='keep the embeddings there')
    return parser.parse_args(argv)


def read_named(path: Path) -> list[dict[str, Any]]:
    """Read a result file.

    Raises:
        DataError: it is missing, or no list of detections.
        UserError: a detection has no name, or no score that is a number.
    """
    rows = read_results(path)
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get('name'), str) or 'score' not in row:
            raise UserError(
                f"detection {place} of {path} has no 'name' or no 'score'; name results of an "
                'open-ended model, such as VL-SAM'
            )
        if not is_number(row['score']):
            shown = reprlib.repr(row['score'])
            raise UserError(f'detection {place} of {path} has the score {shown}; it must be a finite number')
    return rows


def make_mapper(args: argparse.Namespace, names: Sequence[str], synonyms: Any) -> CategoryMapper:
    """The mapper that the options ask for.

    Raises:
        UserError: they contradict each other.
    """
    encoder: dict[str, Any] | None = None
    if args.encoder != 'none':
        chosen = {'model': args.model, 'template': args.template, 'device': args.device}
        given = {name: value for name, value in chosen.items() if value is not None}
        encoder = {'type': f'atss_ext.{ENCODERS[args.encoder]}', **given}
    try:
        return CategoryMapper(
            names, synonyms, encoder, args.top_k, args.threshold,
            lexical=not args.encoder_only, cache_dir=args.cache,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f'the options do not go together: {error}') from None


def main(argv: Sequence[str] | None = None) -> None:
    """Map a file."""
    args = parse_args(argv)
    check_target('--out', args.out, args.results, args.ann)
    rows = read_named(args.results)
    categories = read_categories(args.ann)
    matches = make_mapper(args, categories.names, categories.synonyms).map([row['name'] for row in rows])
    mapped = [
        {
            **row,
            'category_id': categories.ids[label],
            'name': categories.names[label],  # what goes by names, as CODA's figures, must find it too
            'score': row['score'] * weight,
        }
        for row, match in zip(rows, matches, strict=True)
        for label, weight in zip(match.labels, match.weights, strict=True)
    ]
    with writing(args.out) as file:
        json.dump(mapped, file)
    hows = Counter(match.how for match in matches)
    said = ', '.join(f'{how} {hows[how]}' for how in ('exact', 'synonym', 'encoder'))
    print(f'{len(rows)} detections ({said}) are {len(mapped)} in {args.out}')
    if hows['none']:
        note(f'{hows["none"]} detections whose names fit no category were left away')


if __name__ == '__main__':
    sys.exit(run_tool(main))
