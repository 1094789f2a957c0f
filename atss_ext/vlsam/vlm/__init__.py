"""Vision-language models: those of transformers, and help for one's own."""

from atss_ext.vlsam.vlm.eager import probabilities
from atss_ext.vlsam.vlm.transformers_vlm import TransformersVLM

__all__ = ['TransformersVLM', 'probabilities']
