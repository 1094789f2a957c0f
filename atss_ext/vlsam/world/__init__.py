"""The small world in which VL-SAM runs offline: its scenes, its words, its processor, its trained models."""

from atss_ext.vlsam.world.scenes import (
    QUESTIONS,
    SEED,
    SPEC,
    SPLITS,
    names_in_order,
    scene_of,
    sentence,
)
from atss_ext.vlsam.world.shipped import SAM, VLM, shipped_folder

__all__ = [
    'QUESTIONS',
    'SAM',
    'SEED',
    'SPEC',
    'SPLITS',
    'VLM',
    'names_in_order',
    'scene_of',
    'sentence',
    'shipped_folder',
]
