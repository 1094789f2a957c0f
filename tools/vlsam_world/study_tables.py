"""The study of prompts in tables."""

from typing import Any, NamedTuple

from study_scores import Bootstrap, Estimate, Study
from study_settings import Setting, describe

METRICS = ('pair', 'hit', 'beside', 'auc')

_ABOUT = """# What makes point prompts better

The paper's steps from attention to points, and what may be done otherwise, compared in the small world: a
LLaVA of 1.4 million parameters with 8 x 8 image tokens, and scenes of 64 x 64 pixels with one to three
objects, of a split made for choosing options. What the model says itself is judged, true names only. Shares
of objects, in whole scenes and in their four corners (there, objects of which at least half is in view):

- **hit**: the positive point lies on the object; **beside**: the negative one lies beside it; **pair**: both;
- **auc**: how often a cell of the object is higher than one beside it, in the map the points come from.

± is a standard error. **gain** is the difference in *pair*, over all views, from the setting without a
change, with its 95% interval. Scenes are drawn anew for both, the same for either setting (bootstrap), since
views and objects of a scene are not independent. Each interval stands by itself: of forty changes without any
effect two would lie beyond theirs by chance."""


class Row(NamedTuple):
    """A setting's quality.

    Attributes:
        setting: judged.
        base: it is compared with.
        objects: judged in whole scenes and in corners.
        whole: an estimate for each of :data:`METRICS`.
        corners: the same there; None where the question was asked about whole scenes only.
        gain: in pairs, from the base, over the views that both were judged in.
    """

    setting: Setting
    base: Setting
    objects: tuple[int, int]
    whole: dict[str, Estimate]
    corners: dict[str, Estimate] | None
    gain: Estimate

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        parts = {
            name: {metric: estimate._asdict() for metric, estimate in part.items()}
            for name, part in (('whole', self.whole), ('corners', self.corners))
            if part is not None
        }
        return {
            'setting': vars(self.setting),
            'changes': self.setting.changes(self.base),
            'objects': self.objects,
            **parts,
            'gain': self.gain._asdict(),
        }


Table = list[tuple[str, Row]]


def compare(study: Study, setting: Setting, base: Setting, bootstrap: Bootstrap) -> Row:
    """A setting beside another, on the bootstrap's scenes."""
    ours, theirs = (study.scores(one).where_scene(bootstrap.scenes) for one in (setting, base))
    if setting.question != base.question:
        theirs = theirs.where(theirs.whole)
    corners = ours.where(~ours.whole)
    return Row(
        setting,
        base,
        (int(ours.whole.sum()), len(corners.scene)),
        _estimates(ours.where(ours.whole), bootstrap),
        _estimates(corners, bootstrap) if len(corners.scene) else None,
        bootstrap.difference(ours.pair, ours.scene, theirs.pair, theirs.scene),
    )


def _estimates(scores: Any, bootstrap: Bootstrap) -> dict[str, Estimate]:
    return {metric: bootstrap.mean(getattr(scores, metric), scores.scene) for metric in METRICS}


def document(chosen: Setting, alone: Table, halves: Table, around: Table, facts: dict[str, Any]) -> str:
    """The whole page.

    Args:
        chosen: the combination.
        alone: each change of the defaults by itself.
        halves: defaults and combination on both halves of the scenes.
        around: each change of the combination by itself.
        facts: about the run.
    """
    whole, corners = alone[0][1].objects
    asked = '; '.join(f'{number}. "{question}"' for number, question in enumerate(facts['questions'], 1))
    made = (
        f'`{facts["command"]}`: scenes 0 to {facts["scenes"] - 1} of the split "{facts["split"]}" (seed '
        f'{facts["split_seed"]}), bootstrap seed {facts["seed"]}; {whole} objects named in whole scenes, '
        f'{corners} in corners. Questions: {asked}; the first unless said otherwise, the others about whole '
        'scenes only.'
    )
    sections = [
        _ABOUT,
        made,
        f'## The combination\n\n{_combination(chosen)}\n\n{markdown(halves)}',
        f"## Each change of the pipeline's defaults by itself\n\n{_helpful(alone)}\n\n{markdown(alone)}",
        '## Each change of the combination by itself\n\nOn the second half of the scenes, which it was not '
        f'chosen on. {_helpful(around)}\n\n{markdown(around)}',
    ]
    return '\n\n'.join(sections)


def _combination(chosen: Setting) -> str:
    return (
        'Chosen on the first half of the scenes, one factor after the other, a change being taken where it '
        f'gains more than its standard error: `{chosen.config()}`. Only the second half tells how good it is.'
    )


def _helpful(table: Table) -> str:
    """In words: what certainly gains and what certainly loses."""
    texts = []
    for verb, wanted in (('gain', 1), ('lose', -1)):
        rows = [row for _, row in table[1:] if (row.gain.low if wanted > 0 else -row.gain.high) > 0]
        rows.sort(key=lambda row: -wanted * row.gain.value)
        names = [f'{describe(row.setting.changes(row.base))} ({row.gain.value:+.3f})' for row in rows]
        texts.append(f'Whose interval says that they {verb}: {"; ".join(names) or "none"}.')
    return '\n\n'.join(texts)


def markdown(table: Table) -> str:
    """One table."""
    heads = ['part', 'change']
    heads += [f'{metric}, {part}' for part in ('whole', 'corners') for metric in METRICS]
    lines = [f'| {" | ".join([*heads, "gain"])} |', '|' + '---|' * (len(heads) + 1)]
    for part, row in table:
        cells = [part, describe(row.setting.changes(row.base)) or 'none']
        for estimates in (row.whole, row.corners):
            cells += [_share(estimates[metric]) if estimates else '' for metric in METRICS]
        same = row.setting == row.base
        gain = f'{row.gain.value:+.3f} ({row.gain.low:+.3f} to {row.gain.high:+.3f})'
        lines.append(f'| {" | ".join([*cells, "" if same else gain])} |')
    return '\n'.join(lines)


def _share(estimate: Estimate) -> str:
    return f'{estimate.value:.3f} ± {estimate.error:.3f}'
