"""Puts the trained small models into the package, and writes their model card.

python tools/vlsam_world/ship.py --vlm work_dirs/vlsam_world/vlm --sam work_dirs/vlsam_world/sam
python tools/vlsam_world/ship.py --card-only        # after docs/vlsam_world.json was measured

What is shipped before stays whole until the new folder is complete.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from model_card import MODELS, TRAINING, WEIGHTS, card, tensor_shapes

from atss_ext.cli.errors import run_tool
from atss_ext.errors import UserError
from atss_ext.vlsam.world import shipped

LIMIT = 8_000_000  # bytes of everything together
CHECKPOINT = 'checkpoint.pt'
CARD = 'README.md'
FILES = (
    'config.json',
    'generation_config.json',
    'processor_config.json',
    'preprocessor_config.json',
    'tokenizer.json',
    'tokenizer_config.json',
    'special_tokens_map.json',
    'chat_template.jinja',
    TRAINING,
    WEIGHTS,
)
"""All that is taken from a folder, where it is there."""

_NEEDED = {
    'vlm': ('config.json', WEIGHTS, 'processor_config.json', 'tokenizer.json', 'chat_template.jinja'),
    'sam': ('config.json', WEIGHTS, 'processor_config.json'),
}
_TYPES = {'vlm': 'llava', 'sam': 'sam'}
_PICKLES = ('.bin', '.pt', '.pth', '.ckpt', '.pkl', '.pickle')
_TABLE = Path(__file__).resolve().parents[2] / 'docs' / 'vlsam_world.json'


def check_model(folder: Path, name: str) -> None:
    """Refuse what must not be shipped.

    Args:
        folder: of a trained model.
        name: 'vlm' or 'sam'.

    Raises:
        UserError: the folder holds no model, one of another kind, pickles, or an unfinished training.
    """
    training = f'tools/vlsam_world/train_{name}.py'
    missing = [file for file in _NEEDED[name] if not (folder / file).is_file()]
    if missing:
        raise UserError(f'{folder} holds no model, {missing[0]} is missing; make one with {training}.')
    pickles = [path for path in sorted(folder.iterdir()) if path.suffix in _PICKLES]
    for path in pickles:
        if path.name != CHECKPOINT:
            raise UserError(f'{path} is a pickle, which may execute code when it is read; remove it.')
    kind = read_json(folder / 'config.json').get('model_type')
    if kind != _TYPES[name]:
        raise UserError(f'--{name} {folder} is a model of type {kind}; give one of type {_TYPES[name]}.')
    check_weights(folder / WEIGHTS)
    if not (folder / TRAINING).is_file():
        raise UserError(f'{folder} has no {TRAINING}, the end of a training; run {training} to its end.')
    check_finished(folder, training)


def check_weights(path: Path) -> None:
    """Refuse a file that is no safetensors, whatever its name says.

    Raises:
        UserError: it is none.
    """
    from safetensors import SafetensorError

    try:
        tensor_shapes(path)
    except SafetensorError as error:
        raise UserError(f'{path} is no safetensors file ({error}); train the model again.') from error


def check_finished(folder: Path, training: str) -> None:
    """Refuse a model whose training goes on: its checkpoint, if there is one, must be the last.

    Args:
        folder: of the model.
        training: the script, for the message.

    Raises:
        UserError: training.json lacks what the card tells, or the checkpoint is not what it tells of.
    """
    about = read_json(folder / TRAINING)
    if not isinstance(about.get('recipe'), dict) or not isinstance(about.get('minutes'), int | float):
        raise UserError(f'{folder / TRAINING} tells no recipe and minutes; run {training} to its end.')
    if not (folder / CHECKPOINT).is_file():
        return
    state = torch.load(folder / CHECKPOINT, map_location='cpu', weights_only=True)
    if json.loads(json.dumps(state['recipe'])) != about['recipe']:
        raise UserError(
            f'{folder / TRAINING} tells of another training than {CHECKPOINT}; run {training} to its end.'
        )
    if state['step'] != state['recipe']['steps']:
        raise UserError(
            f'{folder} is trained for {state["step"]} of {state["recipe"]["steps"]} steps; run {training} to '
            'its end.'
        )


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        UserError: there is none in it.
    """
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path} is no JSON ({error}); make it again.') from error
    if not isinstance(found, dict):
        raise UserError(f'{path} holds no JSON object; make it again.')
    return found


def read_table(path: Path) -> dict[str, Any] | None:
    """The table of the ablation; None where it is not measured yet."""
    return read_json(path) if path.is_file() else None


def ship(folders: Mapping[str, Path], out: Path, table: Mapping[str, Any] | None) -> int:
    """Replace the shipped models and their card.

    Args:
        folders: of the trained models, by 'vlm' and 'sam'.
        out: the folder to fill; what it holds is replaced as a whole.
        table: for the card.

    Returns:
        bytes of all files.

    Raises:
        UserError: a model is not fit to be shipped, or they are too large.
    """
    for name in MODELS:
        check_model(folders[name], name)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}-') as scratch:
        fresh, former = Path(scratch) / 'fresh', Path(scratch) / 'former'
        for name in MODELS:
            copy_model(folders[name], fresh / name)
        write_card(fresh, table)
        size = sum(path.stat().st_size for path in fresh.rglob('*') if path.is_file())
        if size > LIMIT:
            raise UserError(f'the models take {size:,} bytes together, over {LIMIT:,}; train smaller ones.')
        if out.exists():
            os.replace(out, former)
        try:
            os.replace(fresh, out)
        except OSError:
            if former.exists():
                os.replace(former, out)
            raise
    return size


def copy_model(source: Path, target: Path) -> None:
    """Copy what belongs to a model, readable for everybody: save_pretrained writes weights that are not."""
    target.mkdir(parents=True)
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
            (target / name).chmod(0o644)
    target.chmod(0o755)
    target.parent.chmod(0o755)


def write_card(folder: Path, table: Mapping[str, Any] | None) -> None:
    """Write the card of the models in a folder, whole or not at all.

    Raises:
        UserError: a model or a key of the table is missing.
    """
    try:
        text = card(folder, table)
    except FileNotFoundError as error:
        raise UserError(f'{error.filename} is missing; ship both models first.') from error
    except KeyError as error:
        raise UserError(
            f'the table or a {TRAINING} lacks {error}; make it again with tools/vlsam_world/ablation.py or '
            'the training.'
        ) from error
    partial = folder / f'.{CARD}.partial'
    partial.write_text(text, encoding='utf-8')
    partial.chmod(0o644)
    os.replace(partial, folder / CARD)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Put the trained small models into the package.')
    parser.add_argument('--vlm', type=Path, default=Path('work_dirs/vlsam_world/vlm'))
    parser.add_argument('--sam', type=Path, default=Path('work_dirs/vlsam_world/sam'))
    parser.add_argument(
        '--table', type=Path, default=_TABLE, help='of the ablation, for the card; left out if not there'
    )
    parser.add_argument('--card-only', action='store_true', help='write the card of what is shipped anew')
    parser.add_argument('--out', type=Path, default=shipped.WEIGHTS, help="the package's folder of weights")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Ship, and say what."""
    args = parse_args(argv)
    table = read_table(args.table)
    if args.card_only:
        write_card(args.out, table)
    else:
        size = ship({'vlm': args.vlm, 'sam': args.sam}, args.out, table)
        print(f'shipped {args.vlm} and {args.sam} to {args.out}: {size:,} of {LIMIT:,} bytes')
    print(f'wrote {args.out / CARD}' + ('' if table else f', without figures: {args.table} is not there'))


if __name__ == '__main__':
    sys.exit(run_tool(main, 'the same command starts again'))
