"""Loading the compiled library, and saying once where it is not.

Without it (``ATSS_EXT_NO_NATIVE=1`` at build time, or a source tree that was never built) the plain PyTorch
of :mod:`atss_ext.ops.reference` runs instead; the same for a device the library was not built for.
"""

import importlib
import warnings

import torch
from torch import Tensor

# An op that every backend implements stands for all.
_PROBE = 'atss_ext::atss_assign'
_DISPATCH_KEYS = {'cpu': 'CPU', 'cuda': 'CUDA'}


def _load() -> frozenset[str]:
    """Loads the library; returns the device types it serves."""
    try:
        importlib.import_module('atss_ext._C')
    except ImportError as error:
        warnings.warn(
            f'atss_ext runs its PyTorch reference: the compiled library does not load ({error}). '
            'Reinstall with `pip install --no-build-isolation -e .` to build it for this torch.',
            stacklevel=2,
        )
        return frozenset()
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return frozenset(device for device, key in _DISPATCH_KEYS.items() if has_kernel(_PROBE, key))


# Read at import, so that the ops stay traceable: torch.compile sees a constant.
DEVICES = _load()


def available() -> bool:
    """Whether the compiled library is there and loads."""
    return bool(DEVICES)


def serves(tensor: Tensor) -> bool:
    """Whether the compiled library has kernels for the tensor's device."""
    return tensor.device.type in DEVICES
