"""From config and checkpoint to a detector that predicts."""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from atss_ext.datasets.leaves import iter_leaves
from atss_ext.errors import UserError
from atss_ext.models.checkpoint_match import match_report


def build_detector(cfg: Config) -> nn.Module:
    """The model of a config, which has one, in evaluation mode, without weights that were learnt."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    return model.requires_grad_(False).eval()


def require_match(model: nn.Module, tensors: Mapping[str, Tensor], checkpoint: str) -> None:
    """Refuse weights that are not exactly the model's.

    Raises:
        UserError: tensors are missing, have other shapes, or are left over.
    """
    phrases = match_report(model, tensors)[1]
    if phrases:
        raise UserError(
            f'checkpoint {checkpoint} does not fit the config: of the tensors {", ".join(phrases)}; '
            'correct the config or the checkpoint'
        )


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put in what the model has too.

    What has to be there is asked before (:func:`require_match`); BatchNorm's counters of batches, which are
    not in every file, torch makes itself.
    """
    own = model.state_dict()
    fitting = {key: tensors[key] for key in own if key in tensors and tensors[key].shape == own[key].shape}
    with torch.no_grad():
        model.load_state_dict(fitting)


def dataset_meta_of(cfg: Config) -> dict[str, Any]:
    """What the config's test data is about (``classes``, ``palette``); its files are not read."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    for key in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        dataset = (cfg.get(key) or {}).get('dataset')
        for leaf in iter_leaves(dataset) if dataset else ():
            return dict(DATASETS.build({**leaf, 'lazy_init': True, 'pipeline': []}).metainfo)
    return {}
