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
import sys
from collections.abc import Sequence
from typing import Any

import torch
from sam_batches import SamBatch, SamBatches
from sam_losses import sam_losses
from sam_model import build_sam, build_sam_processor, decode
from sam_scoring import choose, score_segmentation
from scene_cache import Scenes
from torch import Tensor
from training import Training, check_recipe, train
from training import parse_args as read_arguments

from atss_ext.cli.errors import run_tool
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
        factors = ('rate', 'decay', 'focal_weight', 'gamma', 'iou_weight')
        check_recipe(self, ('steps', 'batch', 'scenes'), ('multimask', 'parts'), factors)


class SamTraining(Training):
    """The model, its optimizer and how far they are.

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

    def advance(self) -> dict[str, float]:
        """One step; its losses."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.rate_at()
        self.model.train()
        losses = self.losses(self.batches(self.step))
        self.update(torch.stack(list(losses.values())).sum())
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


def check(training: SamTraining, count: int) -> dict[str, Any]:
    """Scores of each way to prompt on ``count`` scenes neither trained on nor held out, and on corners."""
    scenes = [scene_of('check', index) for index in range(count)]
    found = {
        name: {
            way: score._asdict()
            for way, score in score_segmentation(training.model, scenes, corners=corners).items()
        }
        for name, corners in (('whole', False), ('corners', True))
    }
    for name, scores in found.items():
        for way, score in scores.items():
            shown = ', '.join(f'{key} {value:.3f}' for key, value in score.items())
            print(f'{name}, {count} scenes, {way}: {shown}', flush=True)
    return {'segmentation': found}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return read_arguments(argv, Recipe(), 'Train the small SAM of the world.', 'sam', 'score')


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the scenes, train, and say how well the model segments."""
    train(parse_args(argv), Recipe, SamTraining, check)


if __name__ == '__main__':
    sys.exit(run_tool(main, 'the same command goes on from the last checkpoint'))
