"""How good the points of a setting are, object by object, and how sure that is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from map_quality import map_quality
from numpy.typing import NDArray
from study_answers import Subject
from study_settings import Setting

from atss_ext.vlsam.attention import attention_rows, grid_map
from atss_ext.vlsam.names import row_weights
from atss_ext.vlsam.prompts import NEGATIVE, POSITIVE, PointPrompts, PromptOptions, sample_points

Floats = NDArray[np.float64]


class Scores(NamedTuple):
    """Of n objects.

    Attributes:
        scene: int64 [n], index of the scene.
        whole: bool [n], seen in the whole scene, not in a corner.
        pair: both points are right.
        hit: the positive point lies on the object.
        beside: the negative point lies beside it.
        auc: share of pairs of a cell of the object and one beside it in which the former is higher.
    """

    scene: NDArray[np.int64]
    whole: NDArray[np.bool_]
    pair: Floats
    hit: Floats
    beside: Floats
    auc: Floats

    def where(self, chosen: NDArray[np.bool_]) -> 'Scores':
        """Those of some objects."""
        return Scores(*(values[chosen] for values in self))  # type: ignore[arg-type]

    def where_scene(self, scenes: range) -> 'Scores':
        """Those of some scenes."""
        return self.where((self.scene >= scenes.start) & (self.scene < scenes.stop))


class Study:
    """Scores of any setting on the same answers; maps are made once for all settings that share them.

    Args:
        subjects: answers.
    """

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.subjects = subjects
        self._maps: dict[tuple[object, ...], list[torch.Tensor]] = {}
        self._scores: dict[Setting, Scores] = {}

    def scores(self, setting: Setting) -> Scores:
        """Judge every object's points in a setting."""
        if setting not in self._scores:
            self._scores[setting] = self._judge(setting)
        return self._scores[setting]

    def _judge(self, setting: Setting) -> Scores:
        subjects = [subject for subject in self.subjects if subject.question == setting.question]
        found = prompt(self._maps_of(setting, subjects), setting.prompt_options())
        rows = []
        for subject, prompts in zip(subjects, found, strict=True):
            for index, mask in subject.judged:
                hit, beside = points_right(prompts, index, mask)
                auc = map_quality(prompts.maps[index].cpu().numpy(), mask).auc
                rows.append((subject.scene, subject.whole, hit and beside, hit, beside, auc))
        table = np.array(rows, np.float64).reshape(-1, len(Scores._fields)).T
        return Scores(table[0].astype(np.int64), table[1].astype(bool), *table[2:])

    def _maps_of(self, setting: Setting, subjects: Sequence[Subject]) -> list[torch.Tensor]:
        """The maps [M, R, C] of all mentions of each answer."""
        options = setting.flow_options()
        key = (options, setting.rows, setting.question)
        if key not in self._maps:
            self._maps[key] = []
            for subject in subjects:
                answer, reading = subject.answer, subject.reading
                length = reading.start + len(answer.token_ids)
                weights = row_weights(
                    subject.mentions,
                    answer.spans,
                    reading.start,
                    length,
                    setting.rows,
                    reading.layers[0][0].device,
                )
                rows = attention_rows(reading.layers, weights, options, reading.valid)
                self._maps[key].append(grid_map(rows, reading.grids))
        return self._maps[key]


def prompt(maps: Sequence[torch.Tensor], options: PromptOptions) -> list[PointPrompts]:
    """Points of all answers: an answer at a time only where its objects' maps are compared."""
    if options.contrast != 'off' or options.sinks != 'off':
        return [sample_points(one, options) for one in maps]
    if not maps:
        return []
    together = sample_points(torch.cat(list(maps)), options)
    counts = [len(one) for one in maps]
    return [PointPrompts(*parts) for parts in zip(*(field.split(counts) for field in together), strict=True)]


def points_right(prompts: PointPrompts, index: int, mask: NDArray[np.bool_]) -> tuple[bool, bool]:
    """Whether the first point of an object lies on its mask, and its last one beside it."""
    size = np.array(mask.shape[::-1])
    (x1, y1), (x2, y2) = (prompts.points[index, [0, -1]].cpu().numpy() * size).astype(int)
    first, last = prompts.labels[index, [0, -1]].tolist()
    return first == POSITIVE and bool(mask[y1, x1]), last == NEGATIVE and not mask[y2, x2]


class Estimate(NamedTuple):
    """A share, or a difference of two, with what chance does to it.

    Attributes:
        value: of the scenes there are.
        error: standard error.
        low: 2.5% quantile.
        high: 97.5% quantile.
    """

    value: float
    error: float
    low: float
    high: float


class Bootstrap:
    """Draws scenes anew: objects and views of one scene are not independent of each other.

    Args:
        scenes: indices of the S scenes there are.
        seed: of the draws, the same for all estimates, which makes them paired.
        repeats: draws.
    """

    def __init__(self, scenes: range, seed: int = 0, repeats: int = 2000) -> None:
        self.scenes, count = scenes, len(scenes)
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), repeats)
        self.weights = np.concatenate([np.ones((1, count)), drawn])  # the scenes themselves come first

    def mean(self, values: Floats, scene: NDArray[np.int64]) -> Estimate:
        """The mean of n values, of objects in the scenes ``scene`` (int64 [n])."""
        return _estimate(self._means(values, scene))

    def difference(
        self, ours: Floats, our_scene: NDArray[np.int64], theirs: Floats, their_scene: NDArray[np.int64]
    ) -> Estimate:
        """The difference of two means over the same scenes, not always the same objects."""
        return _estimate(self._means(ours, our_scene) - self._means(theirs, their_scene))

    def _means(self, values: Floats, scene: NDArray[np.int64]) -> Floats:
        place, count = scene - self.scenes.start, len(self.scenes)
        sums = self.weights @ np.bincount(place, values, count)
        return sums / np.maximum(self.weights @ np.bincount(place, minlength=count), 1e-9)


def _estimate(means: Floats) -> Estimate:
    low, high = np.quantile(means[1:], [0.025, 0.975])
    return Estimate(float(means[0]), float(means[1:].std()), float(low), float(high))
