"""Which options of a head go together; what does not is refused in a sentence."""

from typing import Any

REGRESSIONS = ('box', 'point')
INFERENCES = ('mmdet', 'official')
# Losses that compare numbers one by one: in pixels they would weigh large objects far above small ones.
_DELTA_LOSSES = ('L1Loss', 'SmoothL1Loss', 'BalancedL1Loss', 'MSELoss')


def check_regression(regression: str, reg_decoded_bbox: bool, loss_bbox: Any) -> None:
    """Refuses what is regressed with a loss that does not fit it.

    Args:
        regression: 'box' or 'point'.
        reg_decoded_bbox: whether the loss compares boxes instead of deltas.
        loss_bbox: the loss, built.

    Raises:
        ValueError: for an unknown regression, an IoU loss of deltas, a loss of numbers one by one of boxes,
            or deltas from points.
    """
    if regression not in REGRESSIONS:
        raise ValueError(f"regression must be 'box' or 'point', got {regression!r}")
    kind = type(loss_bbox).__name__
    if not reg_decoded_bbox and 'iou' in kind.lower():
        raise ValueError(
            f'loss_bbox {kind} compares boxes, but reg_decoded_bbox=False regresses deltas: remove that key '
            'from the config, or take SmoothL1Loss'
        )
    if reg_decoded_bbox and kind in _DELTA_LOSSES:
        raise ValueError(
            f'loss_bbox {kind} compares deltas, but reg_decoded_bbox=True regresses boxes in pixels: set '
            'reg_decoded_bbox=False, or take an IoU loss such as GIoULoss'
        )
    if not reg_decoded_bbox and regression == 'point':
        raise ValueError(
            "reg_decoded_bbox=False regresses deltas of anchor boxes, got regression='point': set "
            "regression='box', or remove reg_decoded_bbox and take an IoU loss such as GIoULoss"
        )


def check_switches(**switches: object) -> None:
    """Refuses what is neither True nor False: a word such as 'no' would count as true.

    Raises:
        ValueError: naming the first.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ValueError(f'{name} must be True or False, got {value!r}')


def check_inference(mode: str) -> str:
    """How detections are ranked and scored, where that is known.

    Raises:
        ValueError: for an unknown mode.
    """
    if mode not in INFERENCES:
        raise ValueError(f"test_cfg.inference must be 'mmdet' or 'official', got {mode!r}")
    return mode
