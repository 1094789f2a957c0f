"""Which detectors :class:`~atss_ext.deploy.graph.DetectorGraph` reproduces, and with which settings."""

from typing import Any, NamedTuple

import torch
from mmdet.models import SingleStageDetector
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import nn

from atss_ext.errors import UserError
from atss_ext.models import ATSSHead


class Suppression(NamedTuple):
    """How NMS is done.

    Attributes:
        iou_threshold: a box goes when its IoU with a kept one of its class is above this.
        class_agnostic: whether classes suppress one another.
        max_per_img: how many detections are kept at most; as mmdet slices by it, -1 drops the last one.
    """

    iou_threshold: float
    class_agnostic: bool
    max_per_img: int


def check_support(model: nn.Module) -> None:
    """Refuse a detector whose predictions are made in another way than those of a dense head.

    Raises:
        UserError: with the part, and what can be exported.
    """
    known = 'one-stage detectors with atss_ext.ATSSHead or mmdet ATSSHead, RetinaHead, FCOSHead'
    kind = type(model).__name__
    if not isinstance(model, SingleStageDetector) or _redefines(model, SingleStageDetector, 'predict'):
        raise UserError(f'a detector of type {kind} cannot be exported; what can are {known}')
    head: Any = model.bbox_head
    if not isinstance(head, BaseDenseHead) or any(_redefines(head, BaseDenseHead, name) for name in _OWN):
        raise UserError(f'a detector with {type(head).__name__} cannot be exported; what can are {known}')
    preprocessor = getattr(model, 'data_preprocessor', None)
    if type(preprocessor) is not DetDataPreprocessor:
        raise UserError(
            f'data_preprocessor {type(preprocessor).__name__} cannot be exported; take DetDataPreprocessor'
        )
    suppression(model)


_OWN = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')


def _redefines(instance: Any, base: type, name: str) -> bool:
    own = getattr(type(instance), name)
    return own is not getattr(base, name) and own is not getattr(ATSSHead, name, None)


def inference_mode(head: Any) -> str:
    """'official' or 'mmdet', how a head ranks and scores; without centerness both are the same."""
    official = isinstance(head, ATSSHead) and head.centerness
    return head._inference_mode(head.test_cfg) if official else 'mmdet'


def suppression(model: Any) -> Suppression:
    """The NMS of a detector's ``test_cfg``.

    Raises:
        UserError: it is another than plain NMS.
    """
    settings = model.bbox_head.test_cfg
    nms = dict(settings.get('nms') or {})
    kind = nms.pop('type', 'nms')
    threshold = nms.pop('iou_threshold', None)
    agnostic = bool(nms.pop('class_agnostic', False))
    nms.pop('split_thr', None)  # how it is computed, not what comes out
    if kind != 'nms' or threshold is None or nms:
        raise UserError(
            f'test_cfg.nms {dict(settings.get("nms") or {})} cannot be exported; set '
            "nms=dict(type='nms', iou_threshold=0.6)"
        )
    # mmcv compares in float32.
    threshold = torch.tensor(float(threshold), dtype=torch.float32).item()
    return Suppression(threshold, agnostic, int(settings.max_per_img))
