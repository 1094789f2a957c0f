"""FSDP: parameters, gradients and optimizer state divided among the processes instead of copied to each.

mmengine's own ``FSDPStrategy`` wraps torch's first FSDP, which refuses machines without an accelerator (seen
with torch 2.14); this one goes by its successor, ``fully_shard``, which leaves the model's class and the
names of its parameters as they are and runs on the CPU as well.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine._strategy import DDPStrategy
from mmengine.device import get_device
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.device_mesh import init_device_mesh

from atss_ext.errors import UserError
from atss_ext.registry import STRATEGIES

_WHOLE = states.StateDictOptions(full_state_dict=True, cpu_offload=True)


@STRATEGIES.register_module()
class ShardedStrategy(DDPStrategy):
    """Trains with ``fully_shard``, for ``runner_type = 'FlexibleRunner'``.

    Checkpoints are whole: one file, with the weights under the names that DDP gives them, for any number of
    processes. ``tools/test.py`` reads them; the optimizer's state goes on with this strategy only. One
    process without a launcher divides nothing.

    Shards and what is computed with them are float32; ``--amp`` computes in half precision, as with DDP.

    Args:
        shard: modules of the model that are gathered one at a time, where they are needed; the rest of the
            model is gathered at the beginning of a step.
        **kwargs: of mmengine's ``DDPStrategy``.

    Raises:
        ValueError: torch is older than 2.6.
    """

    def __init__(self, *, shard: Sequence[str] = ('backbone', 'neck', 'bbox_head'), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not hasattr(torch.distributed, 'fsdp') or not hasattr(torch.distributed.fsdp, 'fully_shard'):
            raise ValueError(f'ShardedStrategy needs torch 2.6 or newer, but this is {torch.__version__}')
        self.shard = tuple(shard)
        self._gathered: tuple[dict, dict] | None = None
        self._scalars: list[str] = []

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        from torch.distributed.fsdp import fully_shard

        names = dict(model.named_modules())
        unknown = [name for name in self.shard if name not in names]
        if unknown:
            raise UserError(
                f'ShardedStrategy: {type(model).__name__} has no module {unknown[0]!r}; name in shard those '
                f'it has, such as {", ".join(name for name, _ in model.named_children())}'
            )
        device = get_device()
        model = self.convert_model(model.to(device))
        self._scalars = _as_vectors(model)
        if not dist.is_initialized():
            return model
        # All have the first process's weights: mmengine sends them around when it has made them.
        mesh = init_device_mesh(device, (dist.get_world_size(),))
        for part in (*(names[name] for name in self.shard), model):
            fully_shard(part, mesh=mesh)
        return model

    def save_checkpoint(self, filename: str, **kwargs: Any) -> None:
        """Gather the state, which takes all processes, and write it in the first."""
        model, optimizer = states.get_state_dict(self.model, self.optim_wrapper.optimizer, options=_WHOLE)
        self._gathered = (self._reshaped(model, ()), optimizer)
        try:
            super().save_checkpoint(filename, **kwargs)
        finally:
            self._gathered = None

    def model_state_dict(self) -> dict:
        """The weights, whole; filled in the first process only."""
        if self._gathered is not None:
            return self._gathered[0]
        return self._reshaped(states.get_model_state_dict(self.model, options=_WHOLE), ())

    def optim_state_dict(self) -> dict:
        """The optimizer's state by names of parameters, whole; filled in the first process only."""
        if self._gathered is not None:
            return self._gathered[1]
        return states.get_optimizer_state_dict(self.model, self.optim_wrapper.optimizer, options=_WHOLE)

    def load_checkpoint(
        self, filename: str, *, callback: Callable[[dict], None] | None = None, **kwargs: Any
    ) -> dict:
        """Load whole weights from a file; ``callback`` sees them in the shapes that this model has."""

        def adapt(checkpoint: dict) -> None:
            checkpoint['state_dict'] = self._reshaped(checkpoint['state_dict'], (1,))
            if callback is not None:
                callback(checkpoint)

        return super().load_checkpoint(filename, callback=adapt, **kwargs)

    def _reshaped(self, state_dict: dict, shape: tuple[int, ...]) -> dict:
        names = set(self._scalars)
        return {
            key: value.reshape(shape) if key.removeprefix('module.') in names else value
            for key, value in state_dict.items()
        }

    def load_model_state_dict(
        self,
        state_dict: dict,
        *,
        strict: bool = False,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> None:
        """Load whole weights; without ``strict`` those of another name or shape are left out."""
        for pattern, replacement in revise_keys:
            state_dict = {re.sub(pattern, replacement, key): value for key, value in state_dict.items()}
        if not strict:
            own = {key: value.shape for key, value in self.model.state_dict().items()}
            state_dict = {key: value for key, value in state_dict.items() if own.get(key) == value.shape}
        options = states.StateDictOptions(full_state_dict=True, strict=strict)
        states.set_model_state_dict(self.model, state_dict, options=options)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load an optimizer's whole state.

        Raises:
            UserError: it is of a run without this strategy, which numbers the parameters.
        """
        if any(isinstance(key, int) for key in state_dict['state']):
            raise UserError(
                'the checkpoint was written without ShardedStrategy, and its optimizer cannot go on with it; '
                'start from its weights: load_from instead of --resume'
            )
        options = states.StateDictOptions(full_state_dict=True)
        states.set_optimizer_state_dict(self.model, self.optim_wrapper.optimizer, state_dict, options=options)


def _as_vectors(model: nn.Module) -> list[str]:
    """Give parameters without a dimension, which cannot be divided, one of length 1; returns their names."""
    names = []
    for place, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() == 0:
                vector = nn.Parameter(parameter.detach().reshape(1), requires_grad=parameter.requires_grad)
                setattr(module, name, vector)
                names.append(f'{place}.{name}' if place else name)
    return names
