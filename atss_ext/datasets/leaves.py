"""The datasets that a config wraps into others."""

from collections.abc import Iterator, Mapping
from typing import Any


def iter_leaves(dataset_cfg: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the datasets inside wrappers (Concat-, Repeat-, ClassBalanced-, MultiImageMixDataset)."""
    inner = [dataset_cfg[key] for key in ('dataset', 'datasets') if key in dataset_cfg]
    if not inner:
        yield dataset_cfg
    for value in inner:
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Mapping):
                yield from iter_leaves(item)
