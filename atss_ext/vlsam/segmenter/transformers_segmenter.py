"""SAM, SAM-HQ, SAM 2, EdgeTAM and the tracker of SAM 3, as transformers has them."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from atss_ext.vlsam.hub import check_options
from atss_ext.vlsam.protocols import Embedding, Image, Segmentation
from atss_ext.vlsam.segmenter import families, loading
from atss_ext.vlsam.segmenter.batches import Prompts, check_image, check_prompts, decode_in_parts
from atss_ext.vlsam.segmenter.masks import best_proposals, no_objects, threshold


class TransformersSegmenter:
    """A :class:`~atss_ext.vlsam.protocols.Segmenter` over a model of transformers.

    All objects of a call go through the decoder together, up to ``objects_per_call``. Masks reach the size of
    the image a few at a time, and only the best proposal of an object ever does. Results are float32 whatever
    the model computes in, and lie on its device.

    Args:
        model: a folder or a model of the Hugging Face hub, with weights in safetensors; or one that is built,
            which is put into evaluation mode.
        processor: a folder or name; None is that of ``model``. A model that is built needs a processor (or
            an image processor) that is built.
        device: 'auto' is a GPU where there is one, or where a built model is.
        dtype: of the weights, such as 'bfloat16'; 'auto' is the checkpoint's on a GPU, float32 on a CPU, and
            leaves a built model as it is.
        revision: of a model of the hub.
        local_files_only: never ask the network.
        load_options: for ``from_pretrained``, such as ``{'device_map': 'auto'}``; a device map overrules
            ``device``.
        objects_per_call: objects in one call of the decoder at most. SAM takes some 40 MiB an object.

    Raises:
        ValueError: an argument is out of range, or contradicts another.
        VlsamError: transformers is missing or too old, or the model cannot be loaded or takes no points.
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        device: str | torch.device = 'auto',
        dtype: str | torch.dtype = 'auto',
        revision: str | None = None,
        local_files_only: bool = False,
        load_options: Mapping[str, Any] | None = None,
        objects_per_call: int = 64,
    ) -> None:
        if objects_per_call < 1:
            raise ValueError(f'objects_per_call is {objects_per_call}; a call takes at least 1.')
        options = dict(load_options or {})
        check_options(options)
        dtype = loading.find_dtype(dtype)
        if isinstance(model, str | os.PathLike):
            source = {'revision': revision or 'main', 'local_files_only': local_files_only}
            self.model, processor, self.family = _load(model, processor, source, device, dtype, options)
        else:
            self.family = families.family_of(model)
            if processor is None or isinstance(processor, str | os.PathLike):
                raise ValueError(
                    f'a model that is built needs a {self.family.processor} that is built, but processor is '
                    f'{processor!r}; pass {self.family.processor}.from_pretrained(...), or name the model.'
                )
            if options:
                raise ValueError(f'load_options={options!r} have no effect on a model that is built.')
            self.model = model.to(dtype) if isinstance(dtype, torch.dtype) else model
            if device != 'auto':
                self.to(device)
        self.model.eval()
        self.image_processor = getattr(processor, 'image_processor', processor)
        self.objects_per_call = objects_per_call

    @property
    def device(self) -> torch.device:
        """Of the model and of what it returns."""
        return self.model.device

    def to(self, device: torch.device | str) -> 'TransformersSegmenter':
        """Move the model; one that is spread over devices or quantised stays. Embed images again after it."""
        placed = getattr(self.model, 'hf_device_map', None) or getattr(self.model, 'is_quantized', False)
        if not placed:
            self.model.to(device)
        return self

    @torch.no_grad()
    def embed(self, image: Image) -> Embedding:
        """Look at an image once.

        Args:
            image: RGB uint8 [H, W, 3].

        Returns:
            to be handed to :meth:`segment` any number of times, in any order with those of other images.

        Raises:
            VlsamError: it is no such image, or too thin for the model.
        """
        longest = self.image_processor.size['longest_edge'] if self.family.padded else None
        image = check_image(image, longest)
        # Said, not guessed: an image 3 pixels high looks like channels first.
        inputs = self.image_processor(image, return_tensors='pt', input_data_format='channels_last')
        return Embedding(
            (image.shape[0], image.shape[1]), families.embed(self.model, self.family.padded, inputs)
        )

    @torch.no_grad()
    def segment(
        self,
        embedding: Embedding,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        boxes: Tensor | None = None,
        multimask: bool = True,
    ) -> Segmentation:
        """Segment O objects; see :meth:`atss_ext.vlsam.protocols.Segmenter.segment`.

        Objects with as many points each share one call of the decoder: padded points are taken out before,
        because a decoder attends to them, too.

        Args:
            embedding: of the image.
            points: float32 [O, P, 2], (x, y) in pixels of the image.
            labels: int64 [O, P]: 1 on the object, 0 beside it, -10 no point.
            mask_logits: float32 [O, h, w] of an earlier call.
            boxes: float32 xyxy [O, 4] in pixels of the image.
            multimask: take the best of several proposals; False takes the model's single one (which SAM 2
                and its kin replace by the best of several where it is unstable).

        Returns:
            one mask an object.

        Raises:
            VlsamError: prompts that do not fit together, see
                :func:`~atss_ext.vlsam.segmenter.batches.check_prompts`.
        """
        size, features = embedding
        if not len(points):
            return no_objects(size, features.mask_size, self.device)
        prompts = check_prompts(points, labels, mask_logits, boxes, features.mask_size, self.device)

        def decode(part: Prompts) -> tuple[Tensor, Tensor]:
            return best_proposals(*families.decode(self.model, features, size, part, multimask))

        logits, ious = decode_in_parts(prompts, self.objects_per_call, decode)
        upsample = partial(families.upsample, features=features, size=size)
        return Segmentation(threshold(logits, size, features.largest(size), upsample), ious, logits)


def _load(
    model: str | os.PathLike[str],
    processor: Any,
    source: Mapping[str, Any],
    device: str | torch.device,
    dtype: str | torch.dtype,
    options: Mapping[str, Any],
) -> tuple[Any, Any, families.Family]:
    """Model, processor and family by name."""
    name = os.path.expanduser(os.fspath(model))
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if dtype == 'auto' and torch.device(device).type == 'cpu' and 'device_map' not in options:
        dtype = torch.float32  # half precision is slow on CPUs
    built, family = loading.load_model(name, source, dtype, options)
    if 'device_map' not in options and not getattr(built, 'is_quantized', False):
        built.to(device)
    if processor is None:
        processor = loading.load_processor(name, source, family)
    elif isinstance(processor, str | os.PathLike):
        path = os.path.expanduser(os.fspath(processor))
        processor = loading.load_processor(path, {**source, 'revision': 'main'}, family)
    return built, processor, family
