"""The one place that touches the compiled library: loading, fake kernels, typed wrappers.

Without the library (``ATSS_EXT_NO_NATIVE=1`` at build time, or a source tree that was never built) the
plain PyTorch of :mod:`atss_ext.ops.reference` runs instead and says so once.
"""

import functools
import importlib
import warnings

import torch
from torch import Tensor

from atss_ext.ops import reference


@functools.cache
def available() -> bool:
    """Whether the compiled library is there and loads; the reason it is not is told once."""
    try:
        importlib.import_module('atss_ext._C')
    except ImportError as error:
        warnings.warn(
            f'atss_ext runs its PyTorch reference: the compiled library does not load ({error}). '
            'Reinstall with `pip install --no-build-isolation -e .` to build it for this torch.',
            stacklevel=2,
        )
        return False
    torch.library.register_fake('atss_ext::aligned_box_iou', _fake_aligned_box_iou)
    return True


def _fake_aligned_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return boxes1.new_empty(boxes1.shape[:1])


def aligned_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of box i with box i.

    Args:
        boxes1: [N, 4] xyxy, any float dtype; half precision is computed in float32.
        boxes2: [N, 4] xyxy, dtype and device of ``boxes1``.

    Returns:
        [N] in [0, 1], dtype of the input; zero-area pairs give 0. Native on the CPU, PyTorch elsewhere
        and wherever a gradient is wanted.

    Raises:
        RuntimeError: when shapes or dtypes differ.
    """
    wants_grad = torch.is_grad_enabled() and (boxes1.requires_grad or boxes2.requires_grad)
    if boxes1.device.type == 'cpu' and not wants_grad and available():
        return torch.ops.atss_ext.aligned_box_iou(boxes1, boxes2)
    dtype = reference.compute_dtype(boxes1.dtype)
    return reference.aligned_box_iou(boxes1.to(dtype), boxes2.to(dtype)).to(boxes1.dtype)
