"""Trains the small vision-language model of the world: it looks at a scene and lists its objects.

python tools/vlsam_world/train_vlm.py --out work_dirs/vlsam_world/vlm
python tools/vlsam_world/train_vlm.py --steps 20 --scenes 200 --out /tmp/vlm

First its eyes alone learn what each patch shows and which place that object has in the sentence; then eyes
and words learn together. Interrupted, the same command goes on from the last checkpoint, and ends with the
same weights. The folder then holds the model and its processor as ``from_pretrained`` takes them.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scene_cache import Scenes
from torch import Tensor
from torch.nn import functional
from training import Training, check_recipe, train
from training import parse_args as read_arguments
from vlm_batches import IGNORED, Batch, Batches
from vlm_model import WIDTH, PatchHeads, build_model
from vlm_scoring import answers, score_names, split_names

from atss_ext.cli.errors import run_tool
from atss_ext.errors import UserError
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
        check_recipe(self, ('steps', 'batch', 'scenes', 'patch'), ('eyes', 'parts'), ('rate', 'decay'))


class VlmTraining(Training):
    """The model, the heads that teach its eyes, and how far they are.

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

    def advance(self) -> dict[str, float]:
        """One step; its losses."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.rate_at(self.first_words if group['late'] else 0)
        self.model.train()
        batch = self.batches(self.step)
        losses = self.losses(batch)
        total = losses['patches'] * (self.recipe.patch_weight if 'words' in losses else 1)
        if 'words' in losses:
            total = total + losses['words']
        self.update(total)
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

    def extra_state(self) -> dict[str, Any]:
        """The words the model knows, and the heads."""
        return {'words': list(vocabulary()), 'heads': self.heads.state_dict()}

    def load_extra_state(self, state: Mapping[str, Any], path: Path) -> None:
        """Take the heads, if the words are the same."""
        if state['words'] != list(vocabulary()):
            raise UserError(f'{path} knows other words than the world has now: give another --out.')
        self.heads.load_state_dict(state['heads'])


def check(training: VlmTraining, count: int) -> dict[str, Any]:
    """Names precision and recall on ``count`` scenes that are neither trained on nor held out."""
    scenes = [scene_of('check', index) for index in range(count)]
    said = answers(training.model, training.processor, [scene.image for scene in scenes])
    score = score_names([split_names(text) for text in said], [list(names_in_order(s)) for s in scenes])
    print(f'names of {count} scenes: {score._asdict()}', flush=True)
    return {'names': score._asdict()}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    description = 'Train the small vision-language model of the world.'
    return read_arguments(argv, Recipe(), description, 'vlm', 'name')


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the scenes, train, and say how well the model names."""
    train(parse_args(argv), Recipe, VlmTraining, check)


if __name__ == '__main__':
    sys.exit(run_tool(main, 'the same command goes on from the last checkpoint'))
