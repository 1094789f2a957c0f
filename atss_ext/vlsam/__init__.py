"""VL-SAM: open-ended detection and segmentation; a vision-language model names, its attention prompts SAM."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atss_ext.vlsam.detections import Detections
    from atss_ext.vlsam.loading import load
    from atss_ext.vlsam.options import PipelineOptions
    from atss_ext.vlsam.pipeline import Pipeline
    from atss_ext.vlsam.protocols import VlsamError

__all__ = ['Detections', 'Pipeline', 'PipelineOptions', 'VlsamError', 'load']

_PLACES = {
    'Detections': 'detections',
    'Pipeline': 'pipeline',
    'PipelineOptions': 'options',
    'VlsamError': 'protocols',
    'load': 'loading',
}


def __getattr__(name: str) -> Any:
    # Commands that train need the errors of this package alone, not all that it is made of.
    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_PLACES[name]}'), name)
