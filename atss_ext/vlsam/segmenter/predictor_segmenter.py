"""Predictors in the manner of ``segment_anything``: the original SAM, MobileSAM, HQ-SAM."""

import importlib
import os
import threading
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atss_ext.vlsam.protocols import Embedding, Image, Segmentation, VlsamError
from atss_ext.vlsam.segmenter.batches import Prompts, check_image, check_prompts, decode_in_parts
from atss_ext.vlsam.segmenter.masks import best_proposals, no_objects, threshold

# The packages that are imported by name, each with where it comes from.
PACKAGES = {
    'segment_anything': 'run pip install segment-anything',
    'segment_anything_hq': 'run pip install segment-anything-hq timm',
    'mobile_sam': 'install it from github.com/ChaoningZhang/MobileSAM',
}
# What a predictor keeps of an image; ``interm_features`` is HQ-SAM's.
_STATE = ('features', 'interm_features', 'original_size', 'input_size', 'is_image_set')


class PredictorFeatures(NamedTuple):
    """An image as a predictor keeps it.

    Attributes:
        state: the predictor's attributes that belong to the image.
        mask_size: (h, w) of mask logits, in and out.
    """

    state: dict[str, Any]
    mask_size: tuple[int, int]


class PredictorSegmenter:
    """A :class:`~atss_ext.vlsam.protocols.Segmenter` over a predictor in the manner of ``segment_anything``.

    A predictor has one image at a time; here each embedding keeps what the predictor knew of its image and
    puts it back, so that several may be used in any order. Calls from several threads wait for each other.

    Args:
        predictor: a ``SamPredictor`` of segment_anything, mobile_sam, segment_anything_hq or the like:
            ``set_image``, ``predict_torch``, ``transform.apply_coords_torch``, ``model.postprocess_masks``.
        package: instead of a predictor, the installed package to build one with, one of :data:`PACKAGES`.
        model_type: what to build: a key of the package's ``sam_model_registry``, such as 'vit_h' or 'vit_t'.
        checkpoint: file of its weights, which are loaded without unpickling anything but tensors.
        device: of a predictor that is built; 'auto' takes a GPU where there is one.
        objects_per_call: objects in one call of the decoder at most. A predictor upsamples every proposal to
            its 1024 x 1024 pixels: some 50 MiB an object.

    Raises:
        ValueError: neither or both of predictor and package, or an argument that makes no sense.
        VlsamError: the package or the checkpoint is not there, or they do not belong together.
    """

    def __init__(
        self,
        predictor: Any = None,
        package: str | None = None,
        model_type: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | torch.device = 'auto',
        objects_per_call: int = 16,
    ) -> None:
        if objects_per_call < 1:
            raise ValueError(f'objects_per_call is {objects_per_call}; a call takes at least 1.')
        if (predictor is None) == (package is None):
            raise ValueError(
                f'pass a predictor or the package of one, not {"neither" if package is None else "both"}.'
            )
        if package is not None:
            if model_type is None or checkpoint is None:
                raise ValueError(f'package={package!r} needs model_type and checkpoint as well.')
            predictor = build_predictor(package, model_type, checkpoint, device)
        for name in ('set_image', 'predict_torch', 'transform.apply_coords_torch', 'model.postprocess_masks'):
            part = predictor
            for attribute in name.split('.'):
                part = getattr(part, attribute, None)
            if not callable(part):
                raise ValueError(
                    f'predictor, a {type(predictor).__name__}, has no {name}; pass a SamPredictor, or write '
                    'a class with the two methods of atss_ext.vlsam.protocols.Segmenter around it.'
                )
        self.predictor = predictor
        self._lock = threading.RLock()
        self.objects_per_call = objects_per_call

    @property
    def device(self) -> torch.device:
        """Of the model and of what it returns."""
        return torch.device(self.predictor.device)

    def to(self, device: torch.device | str) -> 'PredictorSegmenter':
        """Move the model. Embed images again after it."""
        self.predictor.model.to(device)
        return self

    @torch.no_grad()
    def embed(self, image: Image) -> Embedding:
        """Look at an image once.

        Args:
            image: RGB uint8 [H, W, 3].

        Raises:
            VlsamError: it is no such image, or too thin for the model.
        """
        image = check_image(image, getattr(self.predictor.transform, 'target_length', None))
        with self._lock:
            self.predictor.set_image(image)
            state = {name: getattr(self.predictor, name) for name in _STATE if hasattr(self.predictor, name)}
        rows, columns = state['features'].shape[-2:]
        return Embedding((image.shape[0], image.shape[1]), PredictorFeatures(state, (4 * rows, 4 * columns)))

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

        Args:
            embedding: of the image.
            points: float32 [O, P, 2], (x, y) in pixels of the image.
            labels: int64 [O, P]: 1 on the object, 0 beside it, -10 no point.
            mask_logits: float32 [O, h, w] of an earlier call.
            boxes: float32 xyxy [O, 4] in pixels of the image.
            multimask: take the best of several proposals; False takes the model's single one.

        Returns:
            one mask an object.

        Raises:
            VlsamError: prompts that do not fit together, see
                :func:`~atss_ext.vlsam.segmenter.batches.check_prompts`.
        """
        size, (state, mask_size) = embedding
        if not len(points):
            return no_objects(size, mask_size, self.device)
        prompts = check_prompts(points, labels, mask_logits, boxes, mask_size, self.device)
        with self._lock:
            for name, value in state.items():
                setattr(self.predictor, name, value)
            decode = partial(self._decode, size, multimask=multimask)
            logits, ious = decode_in_parts(prompts, self.objects_per_call, decode)

        def upsample(part: Tensor) -> Tensor:
            return self.predictor.model.postprocess_masks(part, state['input_size'], size)

        # On the way masks have the size of the model's square, whose side is the longer one of the input.
        pixels = max(size[0] * size[1], max(state['input_size']) ** 2)
        return Segmentation(threshold(logits, size, pixels, upsample), ious, logits)

    def _decode(self, size: tuple[int, int], prompts: Prompts, multimask: bool) -> tuple[Tensor, Tensor]:
        """One call of the decoder: mask logits [n, h, w] and IoUs [n] of the best proposals."""
        predictor = self.predictor
        move = predictor.transform.apply_coords_torch
        boxes = prompts.boxes
        # It would bring every proposal to the size of the image; one pixel each is less to throw away.
        predictor.original_size = (1, 1)
        try:
            _, ious, logits = predictor.predict_torch(
                point_coords=move(prompts.points, size) if prompts.points.shape[1] else None,
                point_labels=prompts.labels if prompts.points.shape[1] else None,
                boxes=None if boxes is None else move(boxes.view(-1, 2, 2), size).view(-1, 4),
                mask_input=None if prompts.mask_logits is None else prompts.mask_logits[:, None],
                multimask_output=multimask,
            )
        finally:
            predictor.original_size = size
        return best_proposals(logits, ious)


def build_predictor(
    package: str, model_type: str, checkpoint: str | os.PathLike[str], device: str | torch.device = 'auto'
) -> Any:
    """A ``SamPredictor`` of an installed package, with weights from a file.

    The model is built without weights; they are loaded here, because the packages themselves unpickle
    whatever a file holds.

    Args:
        package: one of :data:`PACKAGES`.
        model_type: a key of its ``sam_model_registry``.
        checkpoint: a state dict saved by torch.
        device: 'auto' takes a GPU where there is one.

    Raises:
        ValueError: the package is not one of them, or has no such model type.
        VlsamError: the package or the checkpoint is not there, or they do not belong together.
    """
    if package not in PACKAGES:
        raise ValueError(
            f'package is {package!r}; take one of {", ".join(PACKAGES)}, or pass the predictor of another.'
        )
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise VlsamError(f'{package} cannot be imported ({error}); {PACKAGES[package]}.') from error
    if model_type not in module.sam_model_registry:
        known = ', '.join(sorted(module.sam_model_registry))
        raise ValueError(f'model_type is {model_type!r}; take one that {package} has: {known}.')
    state = _load_state(checkpoint)
    model = module.sam_model_registry[model_type]()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        raise VlsamError(
            f'the checkpoint {checkpoint} does not fit {package} {model_type} ({reason}); take the one of '
            'that model.'
        ) from error
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return module.SamPredictor(model.to(device).eval())


def _load_state(checkpoint: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint; nothing in it is run."""
    try:
        state = torch.load(checkpoint, map_location='cpu', weights_only=True)
    except OSError as error:
        raise VlsamError(
            f'the checkpoint {checkpoint} cannot be read ({error.strerror or error}); correct its path.'
        ) from error
    except Exception as error:  # a damaged file can raise any
        raise VlsamError(
            f'the checkpoint {checkpoint} is damaged, or holds more than tensors, which may execute code '
            'when it is read; save the state dict of its model alone.'
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise VlsamError(f'the checkpoint {checkpoint} is no state dict; save that of its model alone.')
    return state
