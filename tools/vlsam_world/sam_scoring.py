"""How well the small SAM turns prompts into masks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sam_batches import draw_prompts, object_masks, smooth_part, to_pixels
from sam_losses import mask_ious
from sam_model import decode
from sam_prompts import Prompts, central_point, distances, grid_centres
from scene_cache import owner_pixels
from scene_views import SceneView, whole_view
from torch import Tensor

from atss_ext.datasets.shapes import Scene
from atss_ext.ops import aligned_box_iou
from atss_ext.vlsam.proposals import tight_box

_THRESHOLDS = np.arange(0.5, 0.96, 0.05)
WAYS = ('gt box', 'central point', 'point', 'pair', 'pair + feedback')


class SegmentationScore(NamedTuple):
    """Of one way to prompt, means over all objects.

    Attributes:
        mask_iou: of the proposal the model believes in most.
        box_iou: of the box around that mask.
        box_ar: share of objects whose box has an IoU of .5, .55 ... .95 at least, the mean over these.
        mask_ar: the same of masks.
        picked: share of objects whose best proposal is the one the model believes in most.
        best_mask_iou: if it always were.
    """

    mask_iou: float
    box_iou: float
    box_ar: float
    mask_ar: float
    picked: float
    best_mask_iou: float


class _Found(NamedTuple):
    """Of O objects: float64 [O] each."""

    mask_iou: NDArray[np.float64]
    box_iou: NDArray[np.float64]
    picked: NDArray[np.float64]
    best: NDArray[np.float64]


def views_of(scene: Scene, corners: bool) -> list[SceneView]:
    """A scene as a whole, or its four corners enlarged; those with objects."""
    view = whole_view(scene.image, owner_pixels(scene), scene.category_ids.astype(np.uint8))
    height, width = view.owners.shape
    places = [(x, y) for y in (0, height // 2) for x in (0, width // 2)]
    views = [smooth_part(view, x, y) for x, y in places] if corners else [view]
    return [view for view in views if len(view.categories)]


@torch.no_grad()
def score_segmentation(
    model: Any, scenes: Sequence[Scene], corners: bool = False, seed: int = 0
) -> dict[str, SegmentationScore]:
    """Prompt every object of the scenes in each of :data:`WAYS`, three proposals each.

    'central point' is the cell on the object nearest to its middle; 'point' and 'pair' are drawn as in
    training, positive points beside the object among them; feedback hands the chosen proposal's logits back.

    Args:
        model: a ``SamModel``, which is put into evaluation mode.
        scenes: of the world.
        corners: their enlarged corners in place of the whole.
        seed: of the points.

    Raises:
        ValueError: there is no object.
    """
    model.eval()
    found: dict[str, list[_Found]] = {way: [] for way in WAYS}
    for index, scene in enumerate(scenes):
        rng = np.random.default_rng([seed, index])
        for view in views_of(scene, corners):
            for way, part in _score_view(model, view, rng).items():
                found[way].append(part)
    if not found[WAYS[0]]:
        raise ValueError(f'none of {len(scenes)} scenes has an object to score; take more.')
    return {way: _mean(parts) for way, parts in found.items()}


def _score_view(model: Any, view: SceneView, rng: np.random.Generator) -> dict[str, _Found]:
    """Each way for the objects of one view."""
    masks = object_masks(view)
    far = distances(masks, grid_centres(*view.owners.shape))
    central = [central_point(mask, row) for mask, row in zip(masks, far, strict=True)]
    drawn = draw_prompts(view, rng)
    ones = torch.ones(len(masks), 1, dtype=torch.int64)
    asked = {
        'gt box': Prompts(boxes=torch.from_numpy(view.boxes)),
        'central point': Prompts(torch.from_numpy(np.stack(central))[:, None], ones),
        'point': drawn['point'],
        'pair': drawn['pair'],
    }
    features = model.vision_encoder(to_pixels(view.image[None])).last_hidden_state
    rows = features.expand(len(masks), -1, -1, -1)
    targets, found = torch.from_numpy(masks), {}
    for way, prompts in asked.items():
        logits, ious = decode(model, rows, prompts, True)
        found[way] = _judge(logits, ious, targets, view.boxes)
    # The pair came last.
    again = decode(model, rows, asked['pair'], True, choose(logits, ious))
    return {**found, 'pair + feedback': _judge(*again, targets, view.boxes)}


def choose(logits: Tensor, predicted: Tensor) -> Tensor:
    """The logits [O, h, w] of the proposals among [O, C, h, w] with the greatest predicted IoU [O, C]."""
    return logits[torch.arange(len(logits), device=logits.device), predicted.argmax(dim=1)]


def _judge(logits: Tensor, predicted: Tensor, targets: Tensor, boxes: NDArray[np.float32]) -> _Found:
    actual = mask_ious(logits > 0, targets[:, None])
    rows, picks = torch.arange(len(actual)), predicted.argmax(dim=1)
    ours, best = actual[rows, picks], actual.amax(dim=1)
    tight = [tight_box(mask) or (0, 0, 0, 0) for mask in (choose(logits, predicted) > 0).numpy()]
    overlaps = aligned_box_iou(torch.tensor(tight, dtype=torch.float32), torch.from_numpy(boxes))
    parts = (ours, overlaps, (ours == best).float(), best)
    return _Found(*(part.double().numpy() for part in parts))


def _mean(parts: Sequence[_Found]) -> SegmentationScore:
    found = _Found(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def recall(ious: NDArray[np.float64]) -> float:
        return float((ious[:, None] >= _THRESHOLDS - 1e-9).mean())

    return SegmentationScore(
        float(found.mask_iou.mean()),
        float(found.box_iou.mean()),
        recall(found.box_iou),
        recall(found.mask_iou),
        float(found.picked.mean()),
        float(found.best.mean()),
    )
