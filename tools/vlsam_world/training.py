"""What the trainings of both small models share: checkpoints, going on, progress, the command line."""

import argparse
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pages import make_folder
from scene_cache import Scenes, cached_scenes
from torch import Tensor, nn

from atss_ext.errors import UserError

Run = TypeVar('Run', bound='Training')


class Training:
    """A model of transformers, its optimizer and how far they are.

    Attributes:
        recipe: a dataclass of all that the weights depend on, with ``steps`` and ``rate``.
        step: of the next update.
        model: with ``save_pretrained``, as its ``processor``.
        processor: of the model.
        optimizer: of the weights.
    """

    recipe: Any
    step: int
    model: Any
    processor: Any
    optimizer: torch.optim.Optimizer

    def advance(self) -> dict[str, float]:
        """One step; its losses."""
        raise NotImplementedError

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint holds beside recipe, step, model and optimizer."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any], path: Path) -> None:
        """Take it from the checkpoint at ``path``.

        Raises:
            UserError: it does not fit.
        """

    def rate_at(self, begin: int = 0) -> float:
        """The learning rate of this step: a short rise from step ``begin`` on, then half a cosine."""
        recipe, rise = self.recipe, max(1, min(200, self.recipe.steps // 20))
        fall = 0.5 * (1 + math.cos(math.pi * self.step / recipe.steps))
        return float(recipe.rate * min(1.0, max(0, self.step - begin + 1) / rise) * max(fall, 0.01))

    def update(self, loss: Tensor) -> None:
        """Follow the gradient of a loss, clipped to a norm of one; the step is done then."""
        self.optimizer.zero_grad()
        loss.backward()
        weights = [weight for group in self.optimizer.param_groups for weight in group['params']]
        nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        self.step += 1

    def save(self, folder: Path) -> None:
        """Write the model and then the checkpoint; a kill meanwhile leaves one that can be gone on from."""
        folder.mkdir(parents=True, exist_ok=True)
        exported = folder / '.partial'
        self.model.save_pretrained(exported)
        self.processor.save_pretrained(exported)
        for path in exported.iterdir():
            path.chmod(0o644)  # safetensors are written for their owner alone
            os.replace(path, folder / path.name)
        exported.rmdir()
        state = {
            'recipe': dataclasses.asdict(self.recipe),
            'step': self.step,
            'model': self.model.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            **self.extra_state(),
        }
        partial = folder / 'checkpoint.pt.partial'
        torch.save(state, partial)
        os.replace(partial, folder / 'checkpoint.pt')

    def resume(self, folder: Path) -> bool:
        """Go on from a checkpoint; False where there is none.

        Raises:
            UserError: it was made with another recipe.
        """
        path = folder / 'checkpoint.pt'
        if not path.is_file():
            return False
        state: dict[str, Any] = torch.load(path, weights_only=True)
        wanted = dataclasses.asdict(self.recipe)
        for name in sorted(wanted.keys() | state['recipe'].keys()):
            before, now = state['recipe'].get(name), wanted.get(name)
            if before != now:
                raise UserError(
                    f'{path} was trained with {name} = {before}, not {now}: give the same, or another --out.'
                )
        self.load_extra_state(state, path)
        self.step = state['step']
        self.model.load_state_dict(state['model'])
        self.optimizer.load_state_dict(state['optimizer'])
        return True


def check_recipe(
    recipe: Any, counts: Sequence[str], shares: Sequence[str], factors: Sequence[str] = ()
) -> None:
    """Refuse a recipe that cannot be trained.

    Args:
        recipe: a dataclass.
        counts: fields of at least 1.
        shares: fields from 0 to 1.
        factors: fields of at least 0, finite.

    Raises:
        ValueError: with the offending value.
    """
    for name in counts:
        if getattr(recipe, name) < 1:
            raise ValueError(f'{name} must be at least 1, but is {getattr(recipe, name)}.')
    if recipe.seed < 0:
        raise ValueError(f'seed must be at least 0, but is {recipe.seed}.')
    for name in shares:
        if not 0 <= getattr(recipe, name) <= 1:
            raise ValueError(f'{name} must be from 0 to 1, but is {getattr(recipe, name)}.')
    for name in factors:
        if not 0 <= getattr(recipe, name) < math.inf:
            raise ValueError(f'{name} must be at least 0, but is {getattr(recipe, name)}.')


def run(training: Training, folder: Path, every: int = 500, quiet: bool = False) -> dict[str, float]:
    """Train to the end; the mean losses of the last steps.

    Args:
        training: fresh or resumed.
        folder: of checkpoints.
        every: steps between two checkpoints.
        quiet: print nothing.
    """
    started, first, steps = time.monotonic(), training.step, training.recipe.steps
    means: dict[str, float] = {}
    while training.step < steps:
        for name, loss in training.advance().items():
            means[name] = loss if name not in means else 0.98 * means[name] + 0.02 * loss
        if training.step % every == 0 or training.step == steps:
            training.save(folder)
        if not quiet and (training.step % 50 == 0 or training.step == steps):
            left = (time.monotonic() - started) / (training.step - first) * (steps - training.step)
            shown = ', '.join(f'{name} {loss:.4f}' for name, loss in sorted(means.items()))
            print(f'step {training.step}/{steps}: loss of {shown}; {left / 60:.1f} min left', flush=True)
    return means


def parse_args(
    argv: Sequence[str] | None, recipe: Any, description: str, folder: str, check: str
) -> argparse.Namespace:
    """Read the command line of a training; every field of the recipe is an option.

    Args:
        argv: the arguments; None for the process's own.
        recipe: with the defaults.
        description: of the command.
        folder: of the results below ``work_dirs/vlsam_world``.
        check: what is done with ``--check-scenes``.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/vlsam_world') / folder)
    parser.add_argument('--cache', type=Path, default=Path('work_dirs/vlsam_world/scenes'))
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        parser.add_argument(f'--{field.name.replace("_", "-")}', type=type(value), default=value)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--workers', type=int, default=0, help='processes that draw the scenes; 0: this one')
    parser.add_argument('--save-every', type=int, default=500, help='steps between two checkpoints')
    parser.add_argument(
        '--check-scenes', type=int, default=200, help=f'scenes to {check} at the end; 0: none'
    )
    return parser.parse_args(argv)


def train(
    args: argparse.Namespace,
    recipe: type,
    build: Callable[[Any, Scenes], Run],
    check: Callable[[Run, int], dict[str, Any]],
) -> None:
    """Draw the scenes, train, check, and note it all in ``training.json``.

    Args:
        args: of :func:`parse_args`.
        recipe: the class of the recipe.
        build: makes the training from recipe and scenes.
        check: looks at so many scenes with what was trained and says how well that went.

    Raises:
        UserError: an argument is out of range, or the folder holds another training.
    """
    for name, least in (('threads', 1), ('save_every', 1), ('workers', 0), ('check_scenes', 0)):
        if getattr(args, name) < least:
            option = name.replace('_', '-')
            raise UserError(f'--{option} must be at least {least}, but is {getattr(args, name)}.')
    for folder in (args.out, args.cache.parent, args.cache):
        make_folder(folder)
    torch.set_num_threads(args.threads)
    started = time.monotonic()
    try:
        chosen = recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(recipe)})
        scenes = cached_scenes(args.cache, chosen.scenes, args.workers, progress=_drawing)
        training = build(chosen, scenes)
    except ValueError as error:
        raise UserError(str(error)) from None
    if training.resume(args.out):
        print(f'going on from step {training.step}', flush=True)
    result = {
        'losses': run(training, args.out, args.save_every),
        'minutes': (time.monotonic() - started) / 60,
        'recipe': dataclasses.asdict(chosen),
    }
    if args.check_scenes:
        result |= check(training, args.check_scenes)
    (args.out / 'training.json').write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


def _drawing(done: int, total: int) -> None:
    if done % 5000 == 0 or done == total:
        print(f'drawn {done}/{total} scenes', flush=True)
