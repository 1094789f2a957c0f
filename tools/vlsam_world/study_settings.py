"""The settings that the study of prompts compares."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from atss_ext.vlsam.attention import FlowOptions
from atss_ext.vlsam.names import DEFAULT_ROW_RULE, ROW_RULES
from atss_ext.vlsam.prompt_maps import CONTRASTS
from atss_ext.vlsam.prompts import POSITIONS, PromptOptions

_FLOW, _PROMPTS = FlowOptions(), PromptOptions()
QUESTION = 'question'


@dataclass(frozen=True)
class Setting:
    """One way from attention to points; the defaults are those of the pipeline, the paper's.

    Attributes:
        flow: of :class:`FlowOptions`, as are ``heads`` and ``layers``.
        heads: how heads are weighted.
        layers: (first, last + 1), None for all.
        rows: one of :data:`ROW_RULES`.
        contrast: of :class:`PromptOptions`, as are all that follow but the last.
        position: where in its cell a point stands.
        smoothing: in cells.
        sinks: their rule.
        sink_ratio: of that rule.
        threshold: of the area.
        question: index of the question asked.
    """

    flow: Any = _FLOW.flow
    heads: Any = _FLOW.heads
    layers: tuple[int, int] | None = _FLOW.layers
    rows: str = DEFAULT_ROW_RULE
    contrast: str = _PROMPTS.contrast
    position: str = _PROMPTS.position
    smoothing: float = _PROMPTS.smoothing
    sinks: str = _PROMPTS.sinks
    sink_ratio: float = _PROMPTS.sink_ratio
    threshold: float = _PROMPTS.threshold
    question: int = 0

    def flow_options(self) -> FlowOptions:
        """For :func:`attention_rows`."""
        return FlowOptions(flow=self.flow, heads=self.heads, layers=self.layers)

    def prompt_options(self) -> PromptOptions:
        """For :func:`sample_points`."""
        return PromptOptions(
            threshold=self.threshold,
            smoothing=self.smoothing,
            sinks=self.sinks,
            sink_ratio=self.sink_ratio,
            contrast=self.contrast,
            position=self.position,
        )

    def changes(self, base: 'Setting') -> dict[str, Any]:
        """The values that differ from those of another setting."""
        return {name: value for name, value in vars(self).items() if value != getattr(base, name)}

    def config(self) -> dict[str, Any]:
        """What differs from the pipeline's defaults, as a config writes it."""
        found: dict[str, Any] = {}
        for name, value in self.changes(Setting()).items():
            if name in FlowOptions.__dataclass_fields__:
                found.setdefault('flow', {})[name] = value
            elif name in PromptOptions.__dataclass_fields__:
                found.setdefault('prompts', {})[name] = value
            elif name != QUESTION:
                found[name] = value
        return found


Change = dict[str, Any]


def factors(layers: int, questions: int) -> dict[str, list[Change]]:
    """What the study varies, in the order in which it chooses.

    Args:
        layers: of the model.
        questions: asked about the scenes.

    Returns:
        the changes of each factor; one of them leaves the pipeline's default.
    """
    halves = {(0, layers // 2), (layers // 2, layers), (0, layers - 1), (1, layers)}
    ranges = sorted(
        {(one, one + 1) for one in range(layers)} | {part for part in halves if part[0] < part[1]}
    )
    every: Sequence[tuple[int, int] | None] = (None, *(one for one in ranges if one != (0, layers)))
    return {
        'flow, heads': [
            {'flow': flow, 'heads': heads}
            for flow in ('none', 'plain', 'regularised')
            for heads in ('uniform', 'mean-max')
        ],
        'layers': [{'layers': one} for one in every],
        'rows': [{'rows': rule} for rule in ROW_RULES],
        'contrast': [{'contrast': rule} for rule in CONTRASTS],
        'position': [{'position': rule} for rule in POSITIONS],
        'smoothing': [{'smoothing': sigma} for sigma in (0.0, 0.5, 0.75, 1.0, 1.5)],
        'sinks': [{'sinks': 'off'}, *({'sinks': 'median', 'sink_ratio': ratio} for ratio in (5.0, 10.0))],
        'threshold': [{'threshold': share} for share in (0.3, 0.5, 0.7, 0.8, 0.9)],
        QUESTION: [{QUESTION: number} for number in range(questions)],
    }


def changed(setting: Setting, change: Change) -> Setting:
    """A setting with other values; without sinks their ratio goes back to its default."""
    found = replace(setting, **change)
    return found if found.sinks != 'off' else replace(found, sink_ratio=_PROMPTS.sink_ratio)


def describe(change: Change) -> str:
    """Such as "flow plain, heads uniform"; layers count from 1, as people do."""
    words = []
    for name, value in change.items():
        if name == 'layers':
            value = 'all' if value is None else '-'.join(map(str, sorted({value[0] + 1, value[1]})))
        if name == QUESTION:
            value += 1
        words.append(f'{name.replace("_", " ")} {value}')
    return ', '.join(words)
