"""The small world in which VL-SAM runs offline: its scenes, how they are put into words, its processor."""

from atss_ext.vlsam.world.scenes import (
    QUESTIONS,
    SEED,
    SPEC,
    SPLITS,
    names_in_order,
    scene_of,
    sentence,
)

__all__ = ['QUESTIONS', 'SEED', 'SPEC', 'SPLITS', 'names_in_order', 'scene_of', 'sentence']
