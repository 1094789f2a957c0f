"""Trains the small SAM of the world: it turns points, boxes and earlier masks into masks of objects.

python tools/vlsam_world/train_sam.py --out work_dirs/vlsam_world/sam
python tools/vlsam_world/train_sam.py --steps 20 --scenes 200 --cache /tmp/scenes --out /tmp/sam

Each step prompts every object of a few pictures with a point, a pair of points and a box, and hands the
masks of the points back with the same points, as VL-SAM's refinement does. Interrupted, the same command goes
on from the last checkpoint, and ends with the same weights. The folder then holds the model and its processor
as ``from_pretrained`` takes them.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sam_batches import SamBatch, SamBatches
from sam_losses import sam_losses
from sam_model import build_sam, build_sam_processor, decode
from sam_scoring import choose, score_segmentation
from scene_cache import Scenes, cached_scenes
from torch import Tensor, nn

from atss_ext.cli.errors import UserError, run_tool
from atss_ext.vlsam.world.scenes import SPEC, scene_of


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that the weights depend on.

    Args:
        steps: updates of the weights.
        batch: pictures a step.
        rate: highest learning rate.
        decay: AdamW's weight decay, of matrices only.
        focal_weight: of the focal loss beside the dice loss.
        gamma: of the focal loss.
        iou_weight: of the IoU head's error beside both.
        multimask: share of the decoder's calls that ask for three proposals; else for one.
        scenes: different ones, each also mirrored.
        parts: share of enlarged parts of scenes among the pictures, as the multi-scale ensemble shows them.
        seed: of the weights and of the choice of scenes and prompts.
    """

    steps: int = 5000
    batch: int = 8
    rate: float = 2e-3
    decay: float = 0.05
    focal_weight: float = 5.0
    gamma: float = 0.0
    iou_weight: float = 1.0
    multimask: float = 0.75
    scenes: int = 40000
    parts: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name in ('steps', 'batch', 'scenes'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, but is {getattr(self, name)}.')
        for name in ('multimask', 'parts'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name} must be from 0 to 1, but is {getattr(self, name)}.')
        for name in ('rate', 'decay', 'focal_weight', 'gamma', 'iou_weight'):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f'{name} must be at least 0, but is {getattr(self, name)}.')


class Training:
    """A model, its optimizer and how far they are.

    Args:
        recipe: what to do.
        scenes: the cached scenes.

    Raises:
        ValueError: no scene has an object.
    """

    def __init__(self, recipe: Recipe, scenes: Scenes) -> None:
        self.recipe, self.step = recipe, 0
        self.processor = build_sam_processor(SPEC.width)
        torch.manual_seed(recipe.seed)
        self.model = build_sam(SPEC.width)
        self.batches = SamBatches(scenes, recipe.seed, recipe.batch, recipe.parts, recipe.multimask)
        self.weights = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {'params': [p for p in self.weights if p.ndim > 1], 'weight_decay': recipe.decay},
            {'params': [p for p in self.weights if p.ndim <= 1], 'weight_decay': 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))

    def rate(self) -> float:
        """The learning rate of this step: a short rise, then half a cosine."""
        steps, rise = self.recipe.steps, max(1, min(200, self.recipe.steps // 20))
        fall = 0.5 * (1 + math.cos(math.pi * self.step / steps))
        return self.recipe.rate * min(1.0, (self.step + 1) / rise) * max(fall, 0.01)

    def advance(self) -> dict[str, float]:
        """One step; its losses."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.rate()
        self.model.train()
        losses = self.losses(self.batches(self.step))
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def losses(self, batch: SamBatch) -> dict[str, Tensor]:
        """Each way's mask loss, and 'iou', the weighted error of the IoU head over all ways."""
        rows = self.model.vision_encoder(batch.pixels).last_hidden_state[batch.pictures]
        losses: dict[str, Tensor] = {}
        errors = []
        for way, prompts in batch.prompts.items():
            multimask, earlier = batch.multimask[way], None
            for name in (way, 'again') if way == batch.again else (way,):
                logits, ious = decode(self.model, rows, prompts, multimask, earlier)
                found = sam_losses(logits, ious, batch.targets, self.recipe.focal_weight, self.recipe.gamma)
                losses[name] = found.mask
                errors.append(found.iou)
                # What a decoder is handed back is a prompt like any other: nothing is learned through it.
                earlier = choose(logits, ious).detach()
        losses['iou'] = self.recipe.iou_weight * torch.stack(errors).sum()
        return losses

    def save(self, folder: Path) -> None:
        """Write the checkpoint and the model; a kill meanwhile leaves the former ones."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            'recipe': dataclasses.asdict(self.recipe),
            'step': self.step,
            'model': self.model.state_dict(),
            'optimizer': self.optimizer.state_dict(),
        }
        partial = folder / 'checkpoint.pt.partial'
        torch.save(state, partial)
        os.replace(partial, folder / 'checkpoint.pt')
        exported = folder / '.partial'
        self.model.save_pretrained(exported)
        self.processor.save_pretrained(exported)
        for path in exported.iterdir():
            path.chmod(0o644)  # safetensors are written for their owner alone
            os.replace(path, folder / path.name)
        exported.rmdir()

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
        self.step = state['step']
        self.model.load_state_dict(state['model'])
        self.optimizer.load_state_dict(state['optimizer'])
        return True


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


def check(training: Training, count: int) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of each way to prompt on ``count`` scenes neither trained on nor held out, and on corners."""
    scenes = [scene_of('check', index) for index in range(count)]
    return {
        name: {
            way: score._asdict()
            for way, score in score_segmentation(training.model, scenes, corners=corners).items()
        }
        for name, corners in (('whole', False), ('corners', True))
    }


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    recipe = Recipe()
    parser = argparse.ArgumentParser(description='Train the small SAM of the world.')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/vlsam_world/sam'))
    parser.add_argument('--cache', type=Path, default=Path('work_dirs/vlsam_world/scenes'))
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        parser.add_argument(f'--{field.name.replace("_", "-")}', type=type(value), default=value)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--workers', type=int, default=0, help='processes that draw the scenes; 0: this one')
    parser.add_argument('--save-every', type=int, default=500, help='steps between two checkpoints')
    parser.add_argument('--check-scenes', type=int, default=200, help='scenes to score at the end; 0: none')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the scenes, train, and say how well the model segments."""
    args = parse_args(argv)
    for name in ('threads', 'save_every'):
        if getattr(args, name) < 1:
            raise UserError(f'--{name.replace("_", "-")} must be at least 1, but is {getattr(args, name)}.')
    torch.set_num_threads(args.threads)
    started = time.monotonic()
    try:
        recipe = Recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)})
        scenes = cached_scenes(args.cache, recipe.scenes, args.workers, progress=_drawing)
        training = Training(recipe, scenes)
    except ValueError as error:
        raise UserError(str(error)) from None
    if training.resume(args.out):
        print(f'going on from step {training.step}', flush=True)
    losses = run(training, args.out, args.save_every)
    result: dict[str, Any] = {
        'losses': losses,
        'minutes': (time.monotonic() - started) / 60,
        'recipe': dataclasses.asdict(recipe),
    }
    if args.check_scenes:
        result['segmentation'] = check(training, args.check_scenes)
        for name, scores in result['segmentation'].items():
            for way, score in scores.items():
                shown = ', '.join(f'{key} {value:.3f}' for key, value in score.items())
                print(f'{name}, {args.check_scenes} scenes, {way}: {shown}', flush=True)
    (args.out / 'training.json').write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


def _drawing(done: int, total: int) -> None:
    if done % 5000 == 0 or done == total:
        print(f'drawn {done}/{total} scenes', flush=True)


if __name__ == '__main__':
    sys.exit(run_tool(main))
