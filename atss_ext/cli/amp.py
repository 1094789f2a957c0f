"""Mixed precision without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Automatic mixed precision on the CPU: bfloat16, no loss scaling.

    mmengine's ``AmpOptimWrapper`` refuses to be built without an accelerator. bfloat16 has the
    exponent range of float32, so that losses need no scale.

    Args:
        loss_scale: taken and left alone, so that a config for a GPU fits.
        dtype: likewise; the CPU computes in bfloat16.
        use_fsdp: likewise.
        **kwargs: of mmengine's ``OptimWrapper``.
    """

    def __init__(
        self,
        loss_scale: Any = None,
        dtype: Any = None,
        use_fsdp: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute the forward pass in bfloat16."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Resume, also from a run on a GPU, whose checkpoint holds a loss scale."""
        super().load_state_dict({key: value for key, value in state_dict.items() if key != 'loss_scaler'})
