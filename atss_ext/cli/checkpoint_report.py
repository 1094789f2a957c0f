"""How much of a checkpoint fits the model."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper

from atss_ext.cli.errors import note
from atss_ext.errors import UserError
from atss_ext.models.checkpoint_match import match_report


class CheckpointReport(Hook):
    """Say how many tensors of a checkpoint fit, unless all do; refuse one of another model.

    mmengine loads what fits and warns in a line of thousands of names.

    Args:
        least: share of the model's tensors that have to fit; at least one has to.
    """

    def __init__(self, least: float = 0.0) -> None:
        self.least = least

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Compare before the weights go into the model."""
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        matched, phrases = match_report(model, checkpoint.get('state_dict', checkpoint))
        if not phrases:
            return
        total = sum(not key.endswith('num_batches_tracked') for key in model.state_dict())
        sentence = f'{matched} of the {total} tensors of the model match the checkpoint: {", ".join(phrases)}'
        if matched <= self.least * total:
            raise UserError(f'{sentence}; it belongs to another model: correct the config or the checkpoint')
        note(sentence)
        runner.logger.warning(sentence)
