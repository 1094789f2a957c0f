"""How much of a checkpoint fits the model."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def match_report(model: nn.Module, state_dict: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Compare the tensors of a model and of a checkpoint.

    Args:
        model: the model, without wrappers.
        state_dict: the checkpoint's tensors; a prefix ``module.`` is dropped, as mmengine does.

    Returns:
        How many tensors of the model have one of the same name and shape, and one phrase for each
        way in which others differ. BatchNorm's counters of batches are left out.
    """
    own = {
        key: value.shape
        for key, value in model.state_dict().items()
        if not key.endswith('num_batches_tracked')
    }
    found = {
        re.sub(r'^module\.', '', key): value.shape
        for key, value in state_dict.items()
        if isinstance(value, torch.Tensor) and not key.endswith('num_batches_tracked')
    }
    missing = [key for key in own if key not in found]
    other_shape = [key for key in own if key in found and own[key] != found[key]]
    extra = [key for key in found if key not in own]
    phrases = []
    if missing:
        phrases.append(f"{len(missing)} are not in the file (first '{missing[0]}')")
    if other_shape:
        key = other_shape[0]
        phrases.append(
            f"{len(other_shape)} have another shape there (first '{key}': {tuple(found[key])} instead of "
            f'{tuple(own[key])})'
        )
    if extra:
        phrases.append(f"{len(extra)} of the file are not in the model (first '{extra[0]}')")
    return len(own) - len(missing) - len(other_shape), phrases
