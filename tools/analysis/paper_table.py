"""Train and evaluate every row of a table of the ATSS paper at a small scale; write a table and a plot.

    python tools/analysis/paper_table.py 3 --data shapes

A run that is finished is kept and never made again by the same code; interrupted or killed, the same
command goes on with the runs that are left, and several commands share them.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

# Before torch: threads that wait by spinning take the cores they wait for, on a busy machine tenfold.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from _paper_data import Data, find_data, shapes_data
from _paper_locks import hold, holder
from _paper_report import Line, markdown, order, plot, put_section
from _paper_rows import TABLES, Row, Scale, row_config
from _paper_runs import Run, last_words, make_run, perform

from atss_ext.cli.errors import note, run_tool
from atss_ext.cli.preflight import check_data
from atss_ext.cli.targets import check_targets
from atss_ext.datasets.checks import nearest
from atss_ext.errors import UserError
from atss_ext.visualization.progress import duration


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('table', type=int, help=f'which of the paper: {", ".join(map(str, TABLES))}')
    parser.add_argument(
        '--data', default='shapes', help="'shapes', or a root with train and val in COCO format"
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/paper_tables'), help='of all runs')
    parser.add_argument('--out', type=Path, help='markdown file; a section of this table in it is replaced')
    parser.add_argument('--plot', type=Path, help='PNG file')
    parser.add_argument('--seeds', type=int, default=3, help='trainings of every row')
    parser.add_argument('--rows', nargs='+', help='names of rows, as their configs without tableN_')
    parser.add_argument('--epochs', type=int, default=Scale.epochs)
    parser.add_argument('--size', type=int, default=Scale.size, help='longest side of the images, pixels')
    parser.add_argument('--width', type=int, default=Scale.width, help='channels of the first stage')
    parser.add_argument('--batch-size', type=int, default=Scale.batch_size)
    parser.add_argument('--train-images', type=int, default=400, help='of the shapes world')
    parser.add_argument('--val-images', type=int, default=200, help='of the shapes world')
    old = parser.add_mutually_exclusive_group()
    old.add_argument('--fresh', action='store_true', help='make finished runs anew')
    old.add_argument('--keep-old', action='store_true', help='also take finished runs of other code')
    parser.add_argument('--report', action='store_true', help='train nothing, show the finished runs')
    args = parser.parse_args(argv)
    _check(args)
    words = _stable(sys.argv[1:] if argv is None else argv)
    args.command = f'python tools/analysis/paper_table.py {shlex.join(words)}'
    return args


def _check(args: argparse.Namespace) -> None:
    """Refuse what no training can be made with."""
    if args.table not in TABLES:
        known = ', '.join(map(str, TABLES))
        raise UserError(f'table {args.table} cannot be made at a small scale; choose one of {known}')
    least = {
        'seeds': 1,
        'epochs': 1,
        'size': 32,
        'width': 4,
        'batch_size': 1,
        'train_images': 1,
        'val_images': 1,
    }
    for name, low in least.items():
        if getattr(args, name) < low:
            raise UserError(f'--{name.replace("_", "-")} is {getattr(args, name)}; it must be at least {low}')
    page, picture = outputs(args)
    check_targets({'--out': page, '--plot': picture})


def outputs(args: argparse.Namespace) -> tuple[Path, Path]:
    """The page and the plot to write."""
    page = args.out or args.work_dir / f'table{args.table}.md'
    return page, args.plot or args.work_dir / f'table{args.table}.png'


def _stable(argv: Sequence[str]) -> list[str]:
    """The words of a command that make the same table again."""
    return [word for word in argv if word not in ('--fresh', '--report')]


def chosen_rows(table: int, names: Sequence[str] | None) -> list[Row]:
    """The rows of a table, or the named ones of them.

    Raises:
        UserError: a name that no row has.
    """
    known = {row.config.split('_', 1)[1]: row for row in TABLES[table]}
    for name in names or ():
        if name not in known:
            raise UserError(
                f'table {table} has no row {name}{nearest(name, known)}; it has {", ".join(known)}'
            )
    return [row for name, row in known.items() if not names or name in names]


def find_or_draw(args: argparse.Namespace) -> Data:
    """The data of --data."""
    if args.data != 'shapes':
        return find_data(Path(args.data))
    root = args.work_dir / f'shapes_{args.size}_{args.train_images}_{args.val_images}'
    return shapes_data(root, args.size, args.train_images, args.val_images, lambda done, total: None)


def plan(args: argparse.Namespace, rows: Sequence[Row], data: Data) -> list[Run]:
    """All runs, every row with a seed before any with the next: a table half made is one of fewer seeds."""
    scale = Scale(args.size, args.epochs, args.width, args.batch_size)
    configs = {row.config: row_config(row, scale, data.splits, data.classes) for row in rows}
    first = configs[rows[0].config]
    check_data(first, 'train_dataloader', 'val_dataloader')
    return [
        make_run(name, cfg, seed, data.digest, args.work_dir / 'runs')
        for seed in range(args.seeds)
        for name, cfg in configs.items()
    ]


def with_old(runs: Sequence[Run], keep: bool) -> list[Run]:
    """Say how many runs are finished by other code alone, and take those if they are to be kept."""
    old = {run.folder: run.of_other_code for run in runs if run.result is None}
    count = sum(folder is not None for folder in old.values())
    if count:
        fate = 'taken as they are' if keep else 'trained anew; --keep-old takes them as they are'
        say(f'{count} finished runs are of other code than that of now, and are {fate}')
    return [replace(run, folder=(keep and old.get(run.folder)) or run.folder) for run in runs]


def remove(runs: Sequence[Run]) -> None:
    """Remove runs, finished or not.

    Raises:
        UserError: another process is training one.
    """
    with contextlib.ExitStack() as held:
        for run in {run.lock: run for run in runs}.values():  # rows of the same content are one run
            try:
                held.enter_context(hold(run.lock, wait=False))
            except BlockingIOError:
                raise UserError(
                    f'{run.row}, seed {run.seed}, is being trained by process {holder(run.lock)}; wait for '
                    'its end, or leave --fresh away'
                ) from None
        for run in runs:
            shutil.rmtree(run.folder, ignore_errors=True)


def make_runs(runs: Sequence[Run]) -> list[Run]:
    """Make what is not there yet, last what another command is making, and return what failed."""
    left = [run for run in runs if run.result is None]
    if len(left) < len(runs):
        say(f'{len(runs) - len(left)} of {len(runs)} runs are there already')
    queue = [(run, False) for run in left]
    failed: list[Run] = []
    started, made = time.monotonic(), 0
    for run, waits in queue:  # grows by what is put off
        place = f'[{runs.index(run) + 1}/{len(runs)}] {run.row}, seed {run.seed}'
        if run.result is not None:  # meanwhile
            say(f'{place}: as made for another row or by another command')
            continue
        process = holder(run.lock)
        if process and not waits:
            say(f'{place}: process {process} trains it, so the others go first')
            queue.append((run, True))
            continue
        say(f'{place}: ' + (f'waits for process {process}' if process else f'training in {run.folder}'))
        result = perform(run)
        made += 1
        waiting = sum(other.result is None for other in left if other not in failed) - (result is None)
        eta = duration((time.monotonic() - started) / made * waiting)
        if result is None:
            failed.append(run)
            say(f'{place}: failed ({last_words(run)}), {eta} left')
        else:
            say(f'{place}: AP {result["AP"]:.1f} after {duration(result["seconds"])}, {eta} left')
    return failed


def say(words: str) -> None:
    """Write one line at once, also into a pipe."""
    print(words, flush=True)


def report(args: argparse.Namespace, rows: Sequence[Row], runs: Sequence[Run], data: Data) -> None:
    """Write the table and the plot; without any result, neither: what is there stays.

    Raises:
        UserError: there is no result, and none was to be trained.
    """
    results = [(run.row, run.result) for run in runs]
    out, picture = outputs(args)
    if not any(result for _, result in results):
        words = f'no run of table {args.table} with these options is finished, so {out} is left as it is'
        if args.report:
            raise UserError(f'{words}; correct the options, or train by the same command without --report')
        say(words)
        return
    lines = [Line(row, [r for name, r in results if name == row.config and r is not None]) for row in rows]
    words = (
        f'ResNet-18 with {args.width} channels in its first stage, trained from scratch for {args.epochs} '
        f'epochs on {data.words} of {args.size} pixels.'
    )
    link = os.path.relpath(picture, out.parent)
    put_section(out, args.table, markdown(args.table, lines, args.seeds, words, args.command, link))
    plot(picture, args.table, lines)
    for line in lines:
        here = f'{line.mean("AP"):5.1f} +- {line.spread("AP"):.1f}' if line.results else '-'
        say(f'{line.row.label:<34}paper {line.row.ap:.1f}   here {here}')
    say(order(lines))
    say(f'written: {out}, {picture}')


def main(argv: Sequence[str] | None = None) -> None:
    """Make the runs that are left, and write what all of them say."""
    args = parse_args(argv)
    rows = chosen_rows(args.table, args.rows)
    data = find_or_draw(args)
    runs = plan(args, rows, data)
    if args.fresh and not args.report:
        remove(runs)
    runs = with_old(runs, args.keep_old)
    failed = [] if args.report else make_runs(runs)
    report(args, rows, runs, data)
    if failed:
        first = failed[0]
        note(f'{len(failed)} runs failed, and are tried again next time; first log: {first.folder}/log.txt')
        raise UserError(f'{first.row}, seed {first.seed}, failed: {last_words(first)}')


if __name__ == '__main__':
    sys.exit(run_tool(main, 'the same command goes on with the runs that are left'))
