"""A model that is only tested, in several processes."""

from typing import Any, cast

from mmengine.model import BaseModel
from torch import nn

from atss_ext.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class InferenceWrapper(nn.Module):
    """Stands where a distributed run expects a wrapped model, and hands every call on.

    torch's own wrapper refuses a model without a parameter that learns, and there is nothing to synchronise.

    Args:
        module: the model.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @property
    def _model(self) -> BaseModel:
        return cast(BaseModel, self.module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's."""
        return self.module(*args, **kwargs)

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f'{type(self.module).__name__} is not trained; use tools/test.py.')

    def val_step(self, data: Any) -> Any:
        """The model's."""
        return self._model.val_step(data)

    def test_step(self, data: Any) -> Any:
        """The model's."""
        return self._model.test_step(data)
