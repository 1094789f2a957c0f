"""Where the two models run."""

from collections.abc import Mapping
from typing import Any

import torch

from atss_ext.vlsam.protocols import VlsamError


def places_itself(part: Any) -> bool:
    """Whether a part is a config that names its device or a device map."""
    if not isinstance(part, Mapping):
        return False
    options = part.get('load_options') or {}
    device = part.get('device')
    return device not in (None, 'auto') or bool(part.get('device_map') or options.get('device_map'))


def check_device(device: str | torch.device) -> None:
    """Refuse a device before anything is loaded for it.

    Args:
        device: as torch names it, or 'auto'.

    Raises:
        VlsamError: torch does not know it, or cannot use it here.
    """
    if device == 'auto':
        return
    there = ['auto', 'cpu', *(f'cuda:{index}' for index in range(torch.cuda.device_count()))]
    there += ['mps'] if torch.backends.mps.is_available() else []
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise VlsamError(
            f'torch knows no device {str(device)!r}; take one of those here: {", ".join(there)}.'
        ) from error
    try:
        torch.empty((), device=known)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip('.')
        raise VlsamError(
            f'the device {str(device)!r} cannot be used ({reason}); take one of those here: '
            f'{", ".join(there)}.'
        ) from error
