"""Every setting of VL-SAM, as a config writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atss_ext.vlsam.attention import FlowOptions
from atss_ext.vlsam.ensemble import MergeOptions
from atss_ext.vlsam.names import DEFAULT_ROW_RULE, ROW_RULES, NameOptions
from atss_ext.vlsam.prompts import PromptOptions
from atss_ext.vlsam.scores import ScoreOptions


@dataclass(frozen=True)
class RefineOptions:
    """The iterative refinement, see :func:`refine.refine`.

    Attributes:
        feedback: how often a mask's logits go back to the segmenter with the same points; 0 leaves it out.
        resample: how often points are drawn anew inside of the mask; 0 leaves it out.
        keep: 'all' stages are candidates of the suppression, or the 'last' alone.
    """

    feedback: int = 1
    resample: int = 1
    keep: str = 'all'

    def __post_init__(self) -> None:
        for name in ('feedback', 'resample'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} must be at least 0, but is {getattr(self, name)}.')
        if self.keep not in ('all', 'last'):
            raise ValueError(f"keep must be 'all' or 'last', but is {self.keep!r}.")


@dataclass(frozen=True)
class PipelineOptions:
    """The settings of every step; the defaults are the paper's where it states one.

    Attributes:
        questions: what the VLM is asked; 'default': ten of ours; 'vlm': ten that the VLM writes itself, from
            the image; 'single': the first of ours alone; or the questions themselves.
        corners: look at the four corners of half the height and width too (the multi-scale ensemble).
        cut: what becomes of an object of a corner view that touches a side along which the view cuts the
            image: 'keep' it (the paper, which says nothing of it), or 'drop' it: it is a part, which the
            suppression leaves beside the whole where the two overlap by less than its threshold.
        names: how names are found in an answer.
        rows: which positions speak for a name, one of :data:`names.ROW_RULES`.
        flow: how the attention of all layers becomes one map.
        grids: of a model that sees tiles beside the whole image, which count: 'all', 'global' or 'tiles'.
        prompts: how a map becomes points.
        refine: how often masks are fed back and points sampled anew.
        multimask: let the segmenter propose several masks and believe the best.
        scores: what the confidence is made of.
        merge: the suppression that ends it.
        score_thr: least confidence, 0 keeps all.
        seed: of the VLM's sampling.
        keep_maps: keep each object's attention map, over the whole image (:data:`proposals.MAP_SIDE`).
        max_side: a larger image is reduced to this longest side before anything looks at it.
    """

    questions: str | Sequence[str] = 'default'
    corners: bool = True
    cut: str = 'keep'
    names: NameOptions = field(default_factory=NameOptions)
    rows: str = DEFAULT_ROW_RULE
    flow: FlowOptions = field(default_factory=FlowOptions)
    grids: str = 'all'
    prompts: PromptOptions = field(default_factory=PromptOptions)
    refine: RefineOptions = field(default_factory=RefineOptions)
    multimask: bool = True
    scores: ScoreOptions = field(default_factory=ScoreOptions)
    merge: MergeOptions = field(default_factory=MergeOptions)
    score_thr: float = 0.0
    seed: int = 0
    keep_maps: bool = False
    max_side: int = 4096

    def __post_init__(self) -> None:
        """Refuse what no step could work with."""
        if isinstance(self.questions, str) and self.questions not in ('default', 'vlm', 'single'):
            raise ValueError(
                f"questions must be 'default', 'vlm', 'single' or a list of questions, but is "
                f'{self.questions!r}.'
            )
        if not self.questions:
            raise ValueError('questions is empty; give at least one question.')
        if self.rows not in ROW_RULES:
            raise ValueError(f'rows must be one of {", ".join(ROW_RULES)}, but is {self.rows!r}.')
        if self.cut not in ('keep', 'drop'):
            raise ValueError(f"cut must be 'keep' or 'drop', but is {self.cut!r}.")
        if not 0 <= self.score_thr <= 1:
            raise ValueError(f'score_thr must be from 0 to 1, but is {self.score_thr}.')

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> 'PipelineOptions':
        """Options from a config's plain values; groups are mappings of their own.

        Raises:
            ValueError: an unknown key or a value out of range.
        """
        groups = {
            'names': NameOptions,
            'flow': FlowOptions,
            'prompts': PromptOptions,
            'refine': RefineOptions,
            'scores': ScoreOptions,
            'merge': MergeOptions,
        }
        known = cls.__dataclass_fields__
        values = dict(settings)
        for key, value in settings.items():
            if key not in known:
                raise ValueError(f'VLSAM knows no setting {key!r}; it knows {", ".join(known)}.')
            if key in groups and isinstance(value, Mapping):
                values[key] = _group(key, groups[key], value)
        return cls(**values)


def _group(name: str, kind: Any, value: Mapping[str, Any]) -> Any:
    unknown = [key for key in value if key not in kind.__dataclass_fields__]
    if unknown:
        raise ValueError(
            f'{name} knows no setting {unknown[0]!r}; it knows {", ".join(kind.__dataclass_fields__)}.'
        )
    return kind(**value)
