"""What a config's assigner does with an image, as in training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.models.task_modules import ATSSAssigner as MMDetATSSAssigner
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from numpy.typing import NDArray
from torch import Tensor

from atss_ext import ops
from atss_ext.assigners import (
    ATSSAssigner,
    PackedGts,
    Predictions,
    PyramidPriors,
    assign_batch,
    needs_predictions,
)
from atss_ext.assigners.base import AssignmentError
from atss_ext.models.dense_heads.prior_validity import valid_priors
from atss_ext.models.dense_heads.pyramid_priors import generate_priors


@dataclass(frozen=True)
class AssignedImage:
    """An image as the model sees it, and who learns what on it; M gts, N priors, L levels.

    Attributes:
        image: RGB uint8 [H,W,3], resized and padded.
        boxes: gts xyxy [M,4], pixels of ``image``.
        names: M names of the gts.
        areas: [M], pixels of the image as it was.
        priors: xyxy [N,4], level after level.
        level_sizes: L counts that sum to N.
        strides: L strides, pixels.
        assigned: [N]: i + 1 for gt i, 0 background, -1 ignored.
        valid: [N], False for priors that take no part (in the padding of a batch).
        thresholds: [M], IoUs from which ATSS takes a candidate; None for other assigners.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    names: tuple[str, ...]
    areas: NDArray[np.float32]
    priors: NDArray[np.float32]
    level_sizes: tuple[int, ...]
    strides: tuple[float, ...]
    assigned: NDArray[np.int64]
    valid: NDArray[np.bool_]
    thresholds: NDArray[np.float32] | None

    @property
    def positives(self) -> NDArray[np.int64]:
        """[M,L], positives of every gt on every level."""
        levels = np.split(self.assigned.clip(0), np.cumsum(self.level_sizes)[:-1])
        counts = [np.bincount(level, minlength=len(self.boxes) + 1)[1:] for level in levels]
        return np.stack(counts, axis=1).astype(np.int64)


class Explainer:
    """The assigner of a config with what it needs: priors, the pipeline of validation, a model if it must be.

    Args:
        cfg: of a one-stage detector.
        checkpoint: weights, for assigners that go by predictions; None takes a random initial model, which
            they meet at the start of a training.

    Raises:
        AssignmentError: a config whose head has no anchors or no assigner, or no pipeline of validation.
    """

    def __init__(self, cfg: Config, checkpoint: str | None = None) -> None:
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        self.name = Path(cfg.filename).stem if cfg.filename else 'config'
        self.pipeline = Compose(_pipeline(cfg))
        model = cfg.get('model')
        self.preprocessor = MODELS.build(_part(cfg, model, 'data_preprocessor'))
        self.head = _head(cfg, model)
        self.assigner = self.head.assigner
        self.by_predictions = needs_predictions(self.assigner)
        self.model = _model(cfg, checkpoint) if self.by_predictions else None
        if self.model is not None:
            self.head = self.model.bbox_head
            if not hasattr(self.head, 'predictions_of'):
                raise AssignmentError(
                    f'{type(self.assigner).__name__} of config {cfg.filename} goes by predictions, which '
                    f'{type(self.head).__name__} does not give it for a picture: use atss_ext.ATSSHead'
                )

    @property
    def assigner_name(self) -> str:
        """Of its class."""
        return type(self.assigner).__name__

    def explain(self, info: dict[str, Any], classes: Sequence[str]) -> AssignedImage:
        """Assigns the priors of one image.

        Args:
            info: what a dataset hands to its pipeline.
            classes: names of the labels.
        """
        packed = self.pipeline(info)
        original = packed['data_samples'].ori_shape
        image = packed['inputs']
        data = self.preprocessor({'inputs': [image], 'data_samples': [packed['data_samples']]}, True)
        inputs, sample = data['inputs'], data['data_samples'][0]
        ignored = [sample.ignored_instances] if 'ignored_instances' in sample else None
        gts = PackedGts.from_instances([sample.gt_instances], ignored)
        height, width = inputs.shape[-2:]
        priors, shapes, predictions = self._priors(inputs)
        border = self.head.train_cfg.get('allowed_border', -1)
        valid = valid_priors(self.head.prior_generator, priors.boxes, shapes, [sample.metainfo], border)
        assigned = self._assign(priors, gts, valid, predictions)
        resized = sample.img_shape[0] / original[0] * (sample.img_shape[1] / original[1])
        areas = (gts.boxes[:, 2:] - gts.boxes[:, :2]).prod(1) / resized
        return AssignedImage(
            _padded(image, (height, width)),
            gts.boxes.float().numpy(),
            tuple(classes[label] if label < len(classes) else str(label) for label in gts.labels.tolist()),
            areas.float().numpy(),
            priors.boxes.numpy(),
            tuple(priors.level_sizes),
            tuple(float(max(stride)) for stride in self.head.prior_generator.strides),
            assigned.numpy(),
            np.ones(len(assigned), bool) if valid is None else valid[0].numpy(),
            self._thresholds(priors, gts, valid),
        )

    @torch.no_grad()
    def _priors(
        self, inputs: Tensor
    ) -> tuple[PyramidPriors, tuple[tuple[int, int], ...], Predictions | None]:
        """Priors and (height, width) of the levels of an image [1, 3, H, W], and what is predicted there."""
        generator, cpu = self.head.prior_generator, torch.device('cpu')
        if self.model is None:
            height, width = inputs.shape[-2:]
            # Every level halves the one before and rounds up.
            shapes = tuple((math.ceil(height / h), math.ceil(width / w)) for w, h in generator.strides)
            return generate_priors(generator, shapes, cpu), shapes, None
        scores, boxes, *_ = self.head(self.model.extract_feat(inputs))
        shapes = tuple((level.size(2), level.size(3)) for level in scores)
        priors = generate_priors(generator, shapes, cpu)
        return priors, shapes, self.head.predictions_of(scores, boxes, priors)

    @torch.no_grad()
    def _assign(
        self, priors: PyramidPriors, gts: PackedGts, valid: Tensor | None, predictions: Predictions | None
    ) -> Tensor:
        """[N] int64."""
        return assign_batch(self.assigner, priors, gts, valid, predictions).assigned[0]

    def _thresholds(
        self, priors: PyramidPriors, gts: PackedGts, valid: Tensor | None
    ) -> NDArray[np.float32] | None:
        """[M], mean + std of the candidates' IoUs (ATSS, Alg. 1, l. 10), where these are plain ones."""
        assigner = self.assigner
        if not isinstance(assigner, ATSSAssigner | MMDetATSSAssigner) or self.by_predictions:
            return None
        if type(assigner.iou_calculator).__name__ != 'BboxOverlaps2D':
            return None
        # mmdet's takes k a level, however many anchors a location has.
        by_level = getattr(assigner, 'candidates', 'per_level') == 'per_level'
        k = assigner.topk * (1 if by_level else priors.per_location)
        regions = (gts.ignore_boxes, gts.ignore_offsets, assigner.ignore_iof_thr)
        result = ops.atss_assign(
            priors.boxes, priors.level_sizes, gts.boxes, gts.offsets, k, valid, *regions, False, priors.grid
        )
        return result.thresholds.float().numpy()


def _part(cfg: Config, model: Any, key: str) -> Any:
    found = model.get(key) if isinstance(model, Mapping) else None
    if not isinstance(found, Mapping):
        raise AssignmentError(
            f'config {cfg.filename} has no model.{key}: name a config of a one-stage detector with anchors'
        )
    return found


def _pipeline(cfg: Config) -> list[dict[str, Any]]:
    """The pipeline of validation, which does not depend on chance, with boxes from before its resizing."""
    loader = cfg.get('val_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    steps = dataset.get('pipeline') if isinstance(dataset, Mapping) else None
    if not steps:
        raise AssignmentError(
            f'config {cfg.filename} has no val_dataloader.dataset.pipeline, which prepares the images: add it'
        )
    rest = [dict(step) for step in steps if 'LoadAnnotations' not in step['type']]
    # mmdet's pipelines load annotations last, at the size of the file: there only the metric needs them.
    first = next((place for place, step in enumerate(rest) if 'LoadImage' in step['type']), 0)
    rest.insert(first + 1, {'type': 'LoadAnnotations', 'with_bbox': True})
    rest[-1].pop('meta_keys', None)
    return rest


def _head(cfg: Config, model: Any) -> Any:
    """The head alone: its priors and its assigner need no backbone."""
    parts = {key: model.get(key) for key in ('train_cfg', 'test_cfg')} if isinstance(model, Mapping) else {}
    head = MODELS.build({**_part(cfg, model, 'bbox_head'), **parts})
    for key, what in (('prior_generator', 'anchors'), ('assigner', 'an assigner')):
        if getattr(head, key, None) is None:
            raise AssignmentError(
                f'{type(head).__name__} of config {cfg.filename} has no {key}: name a config of a one-stage '
                f'detector with {what}'
            )
    if not hasattr(head.prior_generator, 'base_anchors'):
        raise AssignmentError(
            f'the priors of {type(head).__name__} of config {cfg.filename} are points: name a config with '
            'anchors, such as one of atss_ext.ATSSHead'
        )
    return head


def _model(cfg: Config, checkpoint: str | None) -> Any:
    parts = cfg.model.to_dict()
    for part in parts.values():
        init = part.get('init_cfg') if isinstance(part, dict) else None
        if isinstance(init, dict) and init.get('type') == 'Pretrained':  # would be fetched
            del part['init_cfg']
    torch.manual_seed(0)
    model = MODELS.build(parts)
    model.init_weights()
    if checkpoint:
        load_checkpoint(model, checkpoint, map_location='cpu')
    return model.eval()


def _padded(image: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """BGR [3,h,w] as mmcv reads it, as RGB [H,W,3] in the corner of black."""
    canvas = np.zeros((*size, 3), np.uint8)
    pixels = image.permute(1, 2, 0).numpy()[..., ::-1]
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas
