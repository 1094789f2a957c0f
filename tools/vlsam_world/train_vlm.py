"""Trains the small vision-language model of the world: it looks at a scene and lists its objects.

python tools/vlsam_world/train_vlm.py --out work_dirs/vlsam_world/vlm
python tools/vlsam_world/train_vlm.py --steps 20 --scenes 200 --out /tmp/vlm

First its eyes alone learn what each patch shows and which place that object has in the sentence; then eyes
and words learn together. Interrupted, the same command goes on from the last checkpoint, and ends with the
same weights. The folder then holds the model and its processor as ``from_pretrained`` takes them.
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
from scene_cache import Scenes, cached_scenes
from torch import Tensor, nn
from torch.nn import functional
from vlm_batches import IGNORED, Batch, Batches
from vlm_model import WIDTH, PatchHeads, build_model
from vlm_scoring import answers, score_names, split_names

from atss_ext.cli.errors import UserError, run_tool
from atss_ext.vlsam.world.processor import build_processor, vocabulary
from atss_ext.vlsam.world.scenes import SPEC, names_in_order, scene_of


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that the weights depend on.

    Args:
        steps: updates of the weights.
        eyes: share of the steps in which the eyes learn alone.
        batch: scenes a step.
        rate: highest learning rate.
        decay: AdamW's weight decay, of matrices only.
        patch_weight: of the patches' loss beside the sentence's.
        scenes: different ones, each also mirrored.
        parts: share of enlarged parts of scenes among the pictures, as the multi-scale ensemble shows them.
        patch: side of an image token, pixels.
        seed: of the weights and of the choice of scenes.
    """

    steps: int = 6000
    eyes: float = 0.2
    batch: int = 32
    rate: float = 2e-3
    decay: float = 0.05
    patch_weight: float = 0.3
    scenes: int = 40000
    parts: float = 0.35
    patch: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name in ('steps', 'batch', 'scenes', 'patch'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, but is {getattr(self, name)}.')
        for name in ('eyes', 'parts'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name} must be from 0 to 1, but is {getattr(self, name)}.')


class Training:
    """A model, its optimizer and how far they are.

    Args:
        recipe: what to do.
        scenes: the cached scenes.
    """

    def __init__(self, recipe: Recipe, scenes: Scenes) -> None:
        self.recipe, self.step = recipe, 0
        self.processor = build_processor(SPEC.width, recipe.patch)
        torch.manual_seed(recipe.seed)
        self.model = build_model(len(self.processor.tokenizer), SPEC.width, recipe.patch)
        self.heads = PatchHeads(WIDTH, len(SPEC.category_names), SPEC.max_objects)
        self.batches = Batches(scenes, self.processor, recipe.seed, recipe.batch, recipe.patch, recipe.parts)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=recipe.rate, betas=(0.9, 0.98))

    def _groups(self) -> list[dict[str, Any]]:
        eyes = [self.model.model.vision_tower, self.model.model.multi_modal_projector, self.heads]
        words = [self.model.model.language_model, self.model.lm_head]
        groups = []
        for late, modules in enumerate((eyes, words)):
            weights = [p for module in modules for p in module.parameters()]
            for decay, wanted in ((self.recipe.decay, True), (0.0, False)):
                chosen = [p for p in weights if (p.ndim > 1) is wanted]
                groups.append({'params': chosen, 'weight_decay': decay, 'late': late})
        return groups

    @property
    def first_words(self) -> int:
        """The step in which the words begin to learn."""
        return int(self.recipe.steps * self.recipe.eyes)

    def rate(self, late: bool) -> float:
        """The learning rate of this step: a short rise, then half a cosine; words rise when they begin."""
        recipe, rise = self.recipe, max(1, min(200, self.recipe.steps // 20))
        begun = self.step - (self.first_words if late else 0)
        fall = 0.5 * (1 + math.cos(math.pi * self.step / recipe.steps))
        return recipe.rate * min(1.0, max(0, begun + 1) / rise) * max(fall, 0.01)

    def advance(self) -> dict[str, float]:
        """One step; its losses."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.rate(bool(group['late']))
        self.model.train()
        batch = self.batches(self.step)
        losses = self.losses(batch)
        total = losses['patches'] * (self.recipe.patch_weight if 'words' in losses else 1)
        if 'words' in losses:
            total = total + losses['words']
        self.optimizer.zero_grad()
        total.backward()
        weights = [p for group in self.optimizer.param_groups for p in group['params']]
        nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """'patches' and, once the words learn, 'words': nats an answer's token."""
        inner = self.model.model
        if self.step < self.first_words:
            features = torch.stack(tuple(inner.get_image_features(batch.pixels).pooler_output))
            losses = {}
        else:
            output = inner(input_ids=batch.tokens, pixel_values=batch.pixels, use_cache=False)
            features = output.image_hidden_states
            if not isinstance(features, Tensor):  # one an image, in some releases of transformers
                features = torch.stack(tuple(features))
            told = batch.targets != IGNORED
            logits = self.model.lm_head(output.last_hidden_state[told])
            losses = {'words': functional.cross_entropy(logits, batch.targets[told])}
        tokens = features.reshape(-1, features.shape[-1])
        losses['patches'] = self.heads(tokens, batch.categories.reshape(-1), batch.orders.reshape(-1))
        return losses

    def save(self, folder: Path) -> None:
        """Write the checkpoint and the model; a kill meanwhile leaves the former ones."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            'recipe': dataclasses.asdict(self.recipe),
            'words': list(vocabulary()),
            'step': self.step,
            'model': self.model.state_dict(),
            'heads': self.heads.state_dict(),
            'optimizer': self.optimizer.state_dict(),
        }
        partial = folder / 'checkpoint.pt.partial'
        torch.save(state, partial)
        os.replace(partial, folder / 'checkpoint.pt')
        exported = folder / '.partial'
        self.model.save_pretrained(exported)
        self.processor.save_pretrained(exported)
        for path in exported.iterdir():
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
        state = torch.load(path, weights_only=True)
        wanted = dataclasses.asdict(self.recipe)
        for name, value in state['recipe'].items():
            if wanted[name] != value:
                raise UserError(
                    f'{path} was trained with {name} = {value}, not {wanted[name]}: give the same, or '
                    'another --out.'
                )
        if state['words'] != list(vocabulary()):
            raise UserError(f'{path} knows other words than the world has now: give another --out.')
        self.step = state['step']
        self.model.load_state_dict(state['model'])
        self.heads.load_state_dict(state['heads'])
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


def check(training: Training, count: int) -> dict[str, float]:
    """Names precision and recall on ``count`` scenes that are neither trained on nor held out."""
    scenes = [scene_of('check', index) for index in range(count)]
    said = answers(training.model, training.processor, [scene.image for scene in scenes])
    score = score_names([split_names(text) for text in said], [list(names_in_order(s)) for s in scenes])
    return score._asdict()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    recipe = Recipe()
    parser = argparse.ArgumentParser(description='Train the small vision-language model of the world.')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/vlsam_world/vlm'))
    parser.add_argument('--cache', type=Path, default=Path('work_dirs/vlsam_world/scenes'))
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        parser.add_argument(f'--{field.name.replace("_", "-")}', type=type(value), default=value)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--workers', type=int, default=0, help='processes that draw the scenes; 0: this one')
    parser.add_argument('--save-every', type=int, default=500, help='steps between two checkpoints')
    parser.add_argument('--check-scenes', type=int, default=200, help='scenes to name at the end; 0: none')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the scenes, train, and say how well the model names."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        recipe = Recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)})
    except ValueError as error:
        raise UserError(str(error)) from None
    started = time.monotonic()
    scenes = cached_scenes(args.cache, recipe.scenes, args.workers, progress=_drawing)
    training = Training(recipe, scenes)
    if training.resume(args.out):
        print(f'going on from step {training.step}', flush=True)
    losses = run(training, args.out, args.save_every)
    result = {
        'losses': losses,
        'minutes': (time.monotonic() - started) / 60,
        'recipe': dataclasses.asdict(recipe),
    }
    if args.check_scenes:
        result['names'] = check(training, args.check_scenes)
        print(f'names of {args.check_scenes} scenes: {result["names"]}', flush=True)
    (args.out / 'training.json').write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')


def _drawing(done: int, total: int) -> None:
    if done % 5000 == 0 or done == total:
        print(f'drawn {done}/{total} scenes', flush=True)


if __name__ == '__main__':
    sys.exit(run_tool(main))
