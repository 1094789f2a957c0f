"""What a segmenter of transformers should give: model and processor, called as their documentation does."""

import functools

import numpy as np
import torch
from tiny_sams import FAMILIES, tiny_sam

from atss_ext.vlsam.protocols import Segmentation
from atss_ext.vlsam.segmenter import TransformersSegmenter


@functools.cache
def segmenter_of(family: str, dtype: str = 'float64') -> TransformersSegmenter:
    """Doubles by default: rounding in the model then moves no mask, and equal means equal."""
    return TransformersSegmenter(*tiny_sam(family), dtype=dtype)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random patches, so that the place of a point matters."""
    patches = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return patches.repeat(8, 0).repeat(8, 1)[:height, :width]


def prompts(count: int, height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A positive and a negative point an object, anywhere in the image."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 2, 2, generator=generator) * torch.tensor([width, height])
    return points, torch.tensor([[1, 0]]).repeat(count, 1)


def directly(
    segmenter: TransformersSegmenter,
    image: np.ndarray,
    points=None,
    labels=None,
    boxes=None,
    mask_logits=None,
    multimask: bool = True,
) -> Segmentation:
    """The way of transformers' documentation: all objects of an image at once, the best mask by hand."""
    model, family = segmenter.model, type(segmenter.model).__name__
    processor = processors()[family]
    inputs = processor(
        images=image,
        input_data_format='channels_last',  # else 3 x 5 pixels are taken for channels first
        input_points=None if points is None else [points.tolist()],
        input_labels=None if labels is None else [labels.tolist()],
        input_boxes=None if boxes is None else [boxes.tolist()],
        return_tensors='pt',
    )
    sizes = [inputs.pop('original_sizes')]
    if 'reshaped_input_sizes' in inputs:
        sizes.append(inputs.pop('reshaped_input_sizes'))
    if mask_logits is not None:
        inputs['input_masks'] = mask_logits[None].to(model.dtype)
    inputs['pixel_values'] = inputs['pixel_values'].to(model.dtype)
    with torch.no_grad():
        output = model(**inputs, multimask_output=multimask)
    whole = processor.post_process_masks(output.pred_masks.float(), *sizes)[0]
    best = [max(range(len(row)), key=row.__getitem__) for row in output.iou_scores[0].tolist()]
    objects = range(len(best))
    return Segmentation(
        torch.stack([whole[o, best[o]] for o in objects]),
        torch.stack([output.iou_scores[0, o, best[o]] for o in objects]).clamp(0, 1).float(),
        torch.stack([output.pred_masks[0, o, best[o]] for o in objects]).float(),
    )


@functools.cache
def processors() -> dict:
    pairs = [tiny_sam(family) for family in FAMILIES]
    return {type(model).__name__: processor for model, processor in pairs}


def assert_same(found: Segmentation, expected: Segmentation) -> None:
    """Equal masks, and everything else up to the rounding of float32."""
    torch.testing.assert_close(found.ious, expected.ious)
    torch.testing.assert_close(found.mask_logits, expected.mask_logits)
    assert torch.equal(found.masks, expected.masks)
