"""What the segmenters of transformers have in common, and where they differ.

They share decoder and prompts (points, boxes, low-resolution mask logits). SAM and SAM-HQ keep the shape of
an image and pad it to a square; SAM 2, EdgeTAM and the tracker of SAM 3 stretch it to one.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from atss_ext.vlsam.protocols import VlsamError
from atss_ext.vlsam.segmenter.batches import Prompts


class Family(NamedTuple):
    """One class of models.

    Attributes:
        model: name of the class in transformers.
        processor: name of its processor's class.
        padded: images keep their shape and are padded to a square; else they are stretched.
        model_types: ``model_type`` of the configs it loads. Checkpoints of SAM 2, EdgeTAM and SAM 3 are
            published as video models, whose image part these classes take.
    """

    model: str
    processor: str
    padded: bool
    model_types: tuple[str, ...]


FAMILIES = (
    Family('SamModel', 'SamProcessor', True, ('sam',)),
    Family('SamHQModel', 'SamHQProcessor', True, ('sam_hq',)),
    Family('Sam2Model', 'Sam2Processor', False, ('sam2', 'sam2_video')),
    Family('EdgeTamModel', 'Sam2Processor', False, ('edgetam', 'edgetam_video')),
    Family('Sam3TrackerModel', 'Sam3TrackerProcessor', False, ('sam3_tracker', 'sam3_video')),
)


class Features(NamedTuple):
    """An image as the decoder of such a model takes it.

    Attributes:
        arguments: of the model: ``image_embeddings``, and ``intermediate_embeddings`` of SAM-HQ.
        frame: (h, w) of the square the model looks at, pixels.
        filled: (h, w) of the part of it the image fills, from the top left.
        padded: what lies beside that part is padding.
    """

    arguments: dict[str, Any]
    frame: tuple[int, int]
    filled: tuple[int, int]
    padded: bool

    @property
    def coarsest(self) -> Tensor:
        """[1, D, h, w], what the decoder attends to; of several levels the last."""
        embeddings = self.arguments['image_embeddings']
        return embeddings if isinstance(embeddings, Tensor) else embeddings[-1]

    @property
    def mask_size(self) -> tuple[int, int]:
        """(h, w) of mask logits, in and out."""
        height, width = self.coarsest.shape[-2:]
        return 4 * height, 4 * width

    def largest(self, size: tuple[int, int]) -> int:
        """Floats that :func:`upsample` makes of one object's mask at a time, for an image of ``size``."""
        return max(size[0] * size[1], self.frame[0] * self.frame[1] if self.padded else 0)


def unsupported(name: str) -> VlsamError:
    """The error for a model that is none of :data:`FAMILIES`."""
    supported = ', '.join(family.model for family in FAMILIES)
    return VlsamError(
        f'{name} is none of the segmenters of transformers that take points ({supported}); write a class '
        'with the two methods of atss_ext.vlsam.protocols.Segmenter around it, or take PredictorSegmenter '
        'for a predictor of segment_anything.'
    )


def family_of(model: Any) -> Family:
    """The family of a model that is built.

    Raises:
        VlsamError: it has none.
    """
    names = {ancestor.__name__ for ancestor in type(model).__mro__}
    for family in FAMILIES:
        if family.model in names:
            return family
    raise unsupported(type(model).__name__)


def embed(model: Any, padded: bool, inputs: Any) -> Features:
    """Run the vision encoder once.

    Args:
        model: of any family.
        padded: of its family.
        inputs: of its image processor, for one image.
    """
    pixels = inputs['pixel_values'].to(model.device, model.dtype)
    found = model.get_image_embeddings(pixels)
    frame = (pixels.shape[-2], pixels.shape[-1])
    filled = frame
    if padded:
        height, width = (int(side) for side in inputs['reshaped_input_sizes'][0])
        filled = (height, width)
    names = ('image_embeddings', 'intermediate_embeddings')  # SAM-HQ gives both, in a tuple
    arguments = dict(zip(names, found, strict=True)) if isinstance(found, tuple) else {names[0]: found}
    return Features(arguments, frame, filled, padded)


def decode(
    model: Any, features: Features, size: tuple[int, int], prompts: Prompts, multimask: bool
) -> tuple[Tensor, Tensor]:
    """One call of the decoder.

    Args:
        model: of any family.
        features: of an image.
        size: (H, W) of that image.
        prompts: of O objects with P points each, none of them padding.
        multimask: ask for several proposals.

    Returns:
        mask logits [O, C, h, w] and IoUs [O, C] of C proposals.
    """
    count = len(prompts.points)
    arguments = dict(features.arguments)
    batch, objects = 1, count
    if prompts.mask_logits is not None:
        # The mask prompt has no dimension for objects: each gets an image of its own.
        batch, objects = count, 1
        arguments['input_masks'] = prompts.mask_logits[:, None].to(features.coarsest.dtype)
        arguments['image_embeddings'] = _expand(arguments['image_embeddings'], count)
    device = prompts.points.device
    # As precise as the processors hand coordinates over: doubles for SAM (MPS has none).
    precise = torch.float64 if features.padded and device.type != 'mps' else torch.float32
    shrink = [features.filled[1] / size[1], features.filled[0] / size[0]]
    scale = torch.tensor(shrink, dtype=precise, device=device)
    if prompts.points.shape[1]:
        arguments['input_points'] = (prompts.points * scale).view(batch, objects, -1, 2)
        arguments['input_labels'] = prompts.labels.view(batch, objects, -1)
    if prompts.boxes is not None:
        arguments['input_boxes'] = (prompts.boxes * scale.repeat(2)).view(batch, objects, 4)
    output = model(**arguments, multimask_output=multimask)
    return output.pred_masks.flatten(0, 1), output.iou_scores.flatten(0, 1)


def _expand(embeddings: Tensor | list[Tensor], count: int) -> Tensor | list[Tensor]:
    """The same image ``count`` times over, without a copy."""
    if isinstance(embeddings, Tensor):
        return embeddings.expand(count, -1, -1, -1)
    return [level.expand(count, -1, -1, -1) for level in embeddings]


def upsample(logits: Tensor, features: Features, size: tuple[int, int]) -> Tensor:
    """Mask logits at the size of the image, as the family's own ``post_process_masks`` makes them.

    Args:
        logits: float32 [n, 1, h, w].
        features: of the image.
        size: (H, W) of the image.

    Returns:
        float32 [n, 1, H, W].
    """
    if features.padded:
        logits = functional.interpolate(logits, features.frame, mode='bilinear', align_corners=False)
        logits = logits[..., : features.filled[0], : features.filled[1]]
    return functional.interpolate(logits, size, mode='bilinear', align_corners=False)
