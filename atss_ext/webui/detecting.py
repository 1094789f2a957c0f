"""Tab 1: a trained detector looks at an image."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmdet.apis import inference_detector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from torch import Tensor, nn

from atss_ext.cli.options import read_config
from atss_ext.cli.runner import require
from atss_ext.datasets.checks import DataError, read_coco
from atss_ext.deploy.checkpoint import read_checkpoint
from atss_ext.deploy.detector import load_weights
from atss_ext.errors import UserError
from atss_ext.models.checkpoint_match import match_report
from atss_ext.vlsam.protocols import Image


class Found(NamedTuple):
    """D detections of one image, best first.

    Attributes:
        boxes: float32 [D, 4], xyxy in pixels of the image.
        scores: float32 [D].
        names: D names.
        category_ids: D ids.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    names: list[str]
    category_ids: list[int]


class Detector:
    """A detector of a config with trained weights.

    Args:
        config: path of a config.
        checkpoint: path of its weights; what the file contains is never run.
        device: where it computes.

    Raises:
        UserError: the config is not one of a detector, or the weights are not its own.
    """

    def __init__(self, config: str, checkpoint: str, device: str = 'cpu') -> None:
        cfg = read_config(config)
        require(cfg, 'model', 'test_dataloader')
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        kept = read_checkpoint(checkpoint)
        self.model = MODELS.build(cfg.model)
        _fill(self.model, kept.tensors, checkpoint)
        self.model.cfg = cfg
        self.model.to(device).eval()
        self.scope = cfg.get('default_scope') or 'mmdet'
        self.classes = _classes(cfg, kept.dataset_meta)
        self.category_ids = _category_ids(cfg, self.classes)

    def __call__(self, image: Image, score_thr: float = 0.0) -> Found:
        """Detect in an image, RGB uint8 [H, W, 3]; scores below ``score_thr`` are left out."""
        init_default_scope(self.scope)
        result = inference_detector(self.model, np.ascontiguousarray(image[..., ::-1])).pred_instances.cpu()
        scores = result.scores.numpy()
        kept = [i for i in np.argsort(-scores, kind='stable').tolist() if scores[i] >= score_thr]
        labels = result.labels[kept].tolist()
        return Found(
            result.bboxes.numpy()[kept].reshape(-1, 4),
            scores[kept],
            [self.classes[label] if label < len(self.classes) else str(label) for label in labels],
            [self.category_ids[label] if label < len(self.classes) else 1 + label for label in labels],
        )


def coco_results(found: Found, image_id: int = 1) -> str:
    """COCO's results json, with each category's name beside its id."""
    rows = []
    for box, score, name, category in zip(*found, strict=True):
        x1, y1, x2, y2 = box.astype(float).tolist()
        rows.append(
            {
                'image_id': image_id,
                'category_id': category,
                'bbox': [x1, y1, x2 - x1, y2 - y1],
                'score': float(score),
                'category_name': name,
            }
        )
    return '[' + ',\n '.join(json.dumps(row) for row in rows) + ']\n'


def rows_of(found: Found) -> list[list[Any]]:
    """The table: name, score, and the box's corners in pixels."""
    rounded = np.round(found.boxes.astype(float), 1).tolist()
    return [
        [name, round(float(score), 3), *box]
        for name, score, box in zip(found.names, found.scores, rounded, strict=True)
    ]


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], checkpoint: str) -> None:
    """Put the weights into the model, all of them: half a detector would find nothing, without a word."""
    matched, phrases = match_report(model, tensors)
    total = sum(not key.endswith('num_batches_tracked') for key in model.state_dict())
    if matched < total:
        raise UserError(
            f'checkpoint {checkpoint} is not of this config: {matched} of the {total} tensors of the model '
            f'match, {", ".join(phrases)}; choose the pair that was trained together'
        )
    load_weights(model, tensors)


def _classes(cfg: Config, kept: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the labels: as the training kept them, or else those of the config's dataset."""
    if kept:
        return tuple(kept['classes'])
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'lazy_init': True})
    return tuple(map(str, dataset.metainfo.get('classes') or ()))


def _category_ids(cfg: Config, classes: Sequence[str]) -> list[int]:
    """Ids of the config's annotation file, where that is there and knows all classes; else 1, 2, ..."""
    plain = list(range(1, 1 + len(classes)))
    evaluator = cfg.get('test_evaluator') or {}
    ann_file = evaluator.get('ann_file') if isinstance(evaluator, Mapping) else None
    if not isinstance(ann_file, str):
        return plain
    try:
        categories = read_coco(ann_file).get('categories') or []
        ids = {category['name']: int(category['id']) for category in categories}
    except (DataError, KeyError, TypeError, ValueError):
        return plain
    return [ids[name] for name in classes] if set(classes) <= set(ids) else plain
