"""Batches for the small SAM: each depends on the seed and its step alone."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sam_prompts import Prompts, distances, draw_negative, draw_positive, grid_centres, jitter_box
from scene_cache import Scenes
from scene_views import SceneView, part_view, whole_view
from torch import Tensor

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of SAM's image processor
# Share of the pictures that must show several objects, where one is found soon: a single object needs no
# prompt, and nothing is learned about prompts from it.
_CROWDED, _TRIES = 0.6, 8
_PAIRS = 0.75  # share of the steps in which it is the pairs' masks that are handed back


class SamBatch(NamedTuple):
    """B pictures with O objects in all, each prompted in three ways.

    Attributes:
        pixels: float32 [B, 3, H, W], as the processor makes them.
        pictures: int64 [O], whose object it is.
        targets: bool [O, H, W], the visible pixels.
        prompts: of all objects, each way: 'point', 'pair' (a positive and a negative point), 'box'.
        multimask: whether three proposals are asked for, each way.
        again: the way whose masks are handed back with the same points.
    """

    pixels: Tensor
    pictures: Tensor
    targets: Tensor
    prompts: dict[str, Prompts]
    multimask: dict[str, bool]
    again: str


class SamBatches:
    """Makes batches.

    Args:
        scenes: to choose from.
        seed: of the choice.
        size: B.
        parts: share of enlarged parts of scenes among the pictures.
        multimask: share of calls of the decoder that ask for three proposals.

    Raises:
        ValueError: no scene has an object.
    """

    def __init__(
        self, scenes: Scenes, seed: int, size: int, parts: float = 0.4, multimask: float = 0.75
    ) -> None:
        self.scenes, self.seed, self.size, self.parts, self.multimask = scenes, seed, size, parts, multimask
        self.inhabited = np.flatnonzero(scenes.categories.any(axis=1))
        if not len(self.inhabited):
            raise ValueError(
                f'none of the {len(scenes.categories)} scenes has an object to segment; draw more.'
            )

    def __call__(self, step: int) -> SamBatch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        chosen = np.sort(rng.choice(self.inhabited, self.size))
        views = [self._view(int(index), rng) for index in chosen]
        counts = [len(view.categories) for view in views]
        drawn = [draw_prompts(view, rng) for view in views]
        prompts = {way: _join([found[way] for found in drawn]) for way in drawn[0]}
        return SamBatch(
            to_pixels(np.stack([view.image for view in views])),
            torch.arange(len(views)).repeat_interleave(torch.tensor(counts)),
            torch.from_numpy(np.concatenate([object_masks(view) for view in views])),
            prompts,
            {way: bool(rng.random() < self.multimask) for way in prompts},
            'pair' if rng.random() < _PAIRS else 'point',
        )

    def _view(self, index: int, rng: np.random.Generator) -> SceneView:
        """A view of a scene; of one with several objects mostly one that shows several."""
        crowded = rng.random() < _CROWDED
        for _ in range(_TRIES):
            view = self._any_view(index, rng)
            if len(view.categories) > 1 or not crowded:
                return view
            index = int(rng.choice(self.inhabited))
        return view

    def _any_view(self, index: int, rng: np.random.Generator) -> SceneView:
        mirror, part = rng.random(2) < (0.5, self.parts)
        view = whole_view(*(values[index] for values in self.scenes), mirror=bool(mirror))
        height, width = view.owners.shape
        x, y = int(rng.integers(width // 2 + 1)), int(rng.integers(height // 2 + 1))
        enlarged = smooth_part(view, x, y) if part else view
        return enlarged if len(enlarged.categories) else view


def smooth_part(view: SceneView, x: int, y: int) -> SceneView:
    """:func:`scene_views.part_view`, enlarged bilinearly as SAM's image processor does it.

    Args:
        view: H and W even.
        x: left side of the part, pixels, 0 to W / 2.
        y: upper side of the part, pixels, 0 to H / 2.
    """
    height, width = view.owners.shape
    small = Image.fromarray(np.ascontiguousarray(view.image[y : y + height // 2, x : x + width // 2]))
    image = np.array(small.resize((width, height), Image.Resampling.BILINEAR))
    return part_view(view, x, y)._replace(image=image)


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """What SAM's image processor makes of RGB images [B, H, W, 3] of its own size: float32 [B, 3, H, W]."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return ((pixels - mean) / std).contiguous()


def object_masks(view: SceneView) -> NDArray[np.bool_]:
    """The visible pixels of a view's M objects: bool [M, H, W]."""
    return view.owners == np.arange(1, len(view.categories) + 1)[:, None, None]


def draw_prompts(view: SceneView, rng: np.random.Generator) -> dict[str, Prompts]:
    """A point, a pair of points and a box for each object of a view."""
    masks = object_masks(view)
    centres = grid_centres(*view.owners.shape)
    far = distances(masks, centres)
    singles, pairs, boxes = [], [], []
    for number in range(len(masks)):
        singles.append([draw_positive(number, masks, far, rng)])
        pairs.append([draw_positive(number, masks, far, rng), centres[draw_negative(number, far, rng)]])
        boxes.append(jitter_box(view.boxes[number], view.owners.shape, rng))
    ones = torch.ones(len(masks), 1, dtype=torch.int64)
    return {
        'point': Prompts(_points(singles, 1), ones),
        'pair': Prompts(_points(pairs, 2), torch.cat([ones, torch.zeros_like(ones)], dim=1)),
        'box': Prompts(boxes=torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4))),
    }


def _points(points: list[list[NDArray[np.float32]]], number: int) -> Tensor:
    return torch.from_numpy(np.array(points, np.float32).reshape(-1, number, 2))


def _join(parts: list[Prompts]) -> Prompts:
    """The prompts of several views' objects, one after another."""
    return Prompts(*(None if kind[0] is None else torch.cat(kind) for kind in zip(*parts, strict=True)))
