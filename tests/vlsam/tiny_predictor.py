"""A predictor in the manner of segment_anything around transformers' SAM at tiny size.

A stand-in: the packages themselves (segment_anything, mobile_sam, segment_anything_hq) are no dependency of
the tests. It has the attributes and signatures of their ``SamPredictor``, ``Sam`` and ``ResizeLongestSide``
as far as a segmenter needs them, and computes with the layers of transformers' SAM, which are the same.
"""

import torch
from tiny_sams import SIDE, tiny_sam
from torch import nn
from torch.nn import functional


class Transform:
    """``ResizeLongestSide``."""

    target_length = SIDE

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        scale = self.target_length / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)

    def apply_coords_torch(self, coords: torch.Tensor, original_size: tuple[int, int]) -> torch.Tensor:
        height, width = self.size_of(*original_size)
        scale = [width / original_size[1], height / original_size[0]]
        return coords.double() * torch.tensor(scale, dtype=torch.float64)


class TinySam(nn.Module):
    """``Sam``: what a state dict belongs to, and the upsampling of masks."""

    mask_threshold = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.sam, self.processor = tiny_sam('sam')

    @property
    def device(self) -> torch.device:
        return self.sam.device

    def postprocess_masks(self, masks, input_size, original_size) -> torch.Tensor:
        masks = functional.interpolate(masks, (SIDE, SIDE), mode='bilinear', align_corners=False)
        masks = masks[..., : input_size[0], : input_size[1]]
        return functional.interpolate(masks, original_size, mode='bilinear', align_corners=False)


class SamPredictor:
    """``SamPredictor``; ``calls`` counts the decoder's."""

    def __init__(self, model: TinySam) -> None:
        self.model, self.transform, self.calls = model, Transform(), 0
        self.reset_image()

    @property
    def device(self) -> torch.device:
        return self.model.device

    def reset_image(self) -> None:
        self.is_image_set, self.features = False, None

    @torch.no_grad()
    def set_image(self, image, image_format: str = 'RGB') -> None:
        assert image_format == 'RGB'
        self.reset_image()
        inputs = self.model.processor(image, return_tensors='pt', input_data_format='channels_last')
        self.original_size = image.shape[:2]
        self.input_size = self.transform.size_of(*image.shape[:2])
        self.features = self.model.sam.get_image_embeddings(inputs['pixel_values'].to(self.model.sam.dtype))
        self.is_image_set = True

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords,
        point_labels,
        boxes=None,
        mask_input=None,
        multimask_output=True,
        return_logits=False,
    ):
        if not self.is_image_set:
            raise RuntimeError('An image must be set with .set_image(...) before mask prediction.')
        self.calls += 1
        sam, batch = self.model.sam, len(boxes if point_coords is None else point_coords)
        sparse, dense = sam.prompt_encoder(
            None if point_coords is None else point_coords[:, None],
            None if point_labels is None else point_labels[:, None],
            None if boxes is None else boxes[:, None],
            None if mask_input is None else mask_input.to(sam.dtype),
        )
        low, ious = sam.mask_decoder(
            image_embeddings=self.features.expand(batch, -1, -1, -1),
            image_positional_embeddings=sam.get_image_wide_positional_embeddings().expand(batch, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        low, ious = low[:, 0], ious[:, 0]
        masks = self.model.postprocess_masks(low, self.input_size, self.original_size)
        return masks if return_logits else masks > self.model.mask_threshold, ious, low


sam_model_registry = {'tiny': lambda checkpoint=None: TinySam()}
