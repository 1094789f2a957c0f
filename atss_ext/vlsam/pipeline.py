"""VL-SAM from an image to its objects: every step of the paper, in the order of its section 3.

The steps themselves stand in files of their own; this one hands their results on and keeps memory bounded.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from atss_ext.vlsam.attention import attention_rows, grid_map
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.ensemble import DEFAULT_QUESTIONS, View, merge, views, write_questions
from atss_ext.vlsam.images import Source, read_image, to_original
from atss_ext.vlsam.names import Mention, find_names, row_weights
from atss_ext.vlsam.options import PipelineOptions
from atss_ext.vlsam.prompts import sample_points
from atss_ext.vlsam.proposals import Proposals
from atss_ext.vlsam.protocols import (
    Answer,
    Embedding,
    Image,
    QueryKey,
    Reading,
    Segmenter,
    VisionLanguageModel,
)
from atss_ext.vlsam.refine import refine
from atss_ext.vlsam.scores import confidence, name_log_probs

# Pixels of the masks of one stage that exist decoded at one time, and objects in one call of the segmenter,
# whose decoder takes some 30 MB an object; more at once are no faster.
MASK_BUDGET = 64 * 1024 * 1024
MOST_AT_ONCE = 16

Progress = Callable[[int, int], None]


class Prompted(NamedTuple):
    """O objects with their points, on their way to the segmenter.

    Attributes:
        names: O names.
        log_probs: float32 [O], of the names.
        points: float32 [O, P, 2], as fractions of the view.
        labels: int64 [O, P].
        maps: float32 [O, R, C].
        contrast: float32 [O].
    """

    names: list[str]
    log_probs: Tensor
    points: Tensor
    labels: Tensor
    maps: Tensor
    contrast: Tensor

    @classmethod
    def join(cls, parts: 'Sequence[Prompted]') -> 'Prompted':
        """The objects of several answers in their order, maps and points of one shape."""
        names, *tensors = zip(*parts, strict=True)
        return cls(list(chain.from_iterable(names)), *(torch.cat(tensor) for tensor in tensors))


class Pipeline:
    """Names and segments what is in an image, without training and without a list of classes.

    Args:
        vlm: names the objects and shows its attention.
        segmenter: turns points into masks.
        options: of the steps.
    """

    def __init__(
        self, vlm: VisionLanguageModel, segmenter: Segmenter, options: PipelineOptions | None = None
    ) -> None:
        _check_protocol('vlm', vlm, VisionLanguageModel)
        _check_protocol('segmenter', segmenter, Segmenter)
        self.vlm, self.segmenter, self.options = vlm, segmenter, options or PipelineOptions()

    def __call__(self, source: Source, progress: Progress | None = None) -> Detections:
        """Find the objects of an image.

        Args:
            source: a path, a PIL image, or an RGB array uint8 [H, W, 3].
            progress: called with (views done, views in all).

        Returns:
            the objects, best first, in pixels of the upright image at its own size.

        Raises:
            VlsamError: the image cannot be read or is too small.
        """
        loaded = read_image(source, max_side=self.options.max_side)
        return to_original(self.detect(loaded.pixels, progress), loaded)

    @torch.no_grad()
    def detect(self, image: Image, progress: Progress | None = None) -> Detections:
        """Find the objects of an image as it is, RGB uint8 [H, W, 3]; nothing is resized."""
        height, width = image.shape[:2]
        found = Proposals((height, width), self.options.keep_maps, self.options.cut == 'drop')
        answers: list[dict[str, str]] = []
        parts = views(height, width, corners=self.options.corners)
        questions = self._questions(image)
        for number, view in enumerate(parts):
            if progress:
                progress(number, len(parts))
            answers += self._look(image, view, questions, found)
        if progress:
            progress(len(parts), len(parts))
        return self._merge(found, answers)

    def _questions(self, image: Image) -> list[str]:
        chosen = self.options.questions
        if chosen == 'vlm':
            return write_questions(self.vlm, image)
        if isinstance(chosen, str):
            return list(DEFAULT_QUESTIONS if chosen == 'default' else DEFAULT_QUESTIONS[:1])
        return list(chosen)

    def _look(
        self, image: Image, view: View, questions: Sequence[str], found: Proposals
    ) -> list[dict[str, str]]:
        """Ask every question about one view and collect what comes of it."""
        x1, y1, x2, y2 = view.box
        crop = np.ascontiguousarray(image[y1:y2, x1:x2])
        count = len(questions)
        answers = self.vlm.answer([crop] * count, questions, [self.options.seed] * count)
        prompted = [
            self._prompt(answer, mentions)
            for answer in answers
            if (mentions := find_names(answer.text, self.options.names, answer.finished))
        ]
        if prompted:  # an image in which nothing was named need not be embedded
            embedding = self.segmenter.embed(crop)
            # Objects of all questions share the calls of the segmenter, which cost the same for one or many.
            for _, alike in groupby(prompted, key=lambda one: (one.maps.shape[1:], one.points.shape[1:])):
                self._propose(Prompted.join(list(alike)), embedding, view, found)
        return [
            {'view': view.name, 'question': question, 'text': answer.text}
            for question, answer in zip(questions, answers, strict=True)
        ]

    def _prompt(self, answer: Answer, mentions: Sequence[Mention]) -> Prompted:
        """From the names of one answer to their points; names whose map tells nothing are left out."""
        reading = self.vlm.read(answer)
        rows = self._rows(answer, mentions, reading)
        log_probs = name_log_probs(mentions, answer.spans, reading.log_probs)
        found = sample_points(grid_map(rows, reading.grids, self.options.grids), self.options.prompts)
        valid = torch.nonzero(found.valid)[:, 0]
        return Prompted(
            [mentions[index].name for index in valid.tolist()],
            log_probs[valid.to(log_probs.device)],
            *(values[valid] for values in (found.points, found.labels, found.maps, found.contrast)),
        )

    def _propose(self, prompted: Prompted, embedding: Embedding, view: View, found: Proposals) -> None:
        """From points to masks, a bounded number of objects at a time."""
        sample = self._sampler(embedding.size)
        for chunk in _chunks(len(prompted.names), embedding.size):
            maps = prompted.maps[chunk]
            stages = refine(
                self.segmenter,
                embedding,
                _in_pixels(prompted.points[chunk], embedding.size),
                prompted.labels[chunk],
                maps,
                sample,
                multimask=self.options.multimask,
                **dataclasses.asdict(self.options.refine),
            )
            for stage in stages:
                device = stage.ious.device
                scores, parts = confidence(
                    stage.ious,
                    prompted.contrast[chunk].to(device),
                    prompted.log_probs[chunk].to(device),
                    self.options.scores,
                )
                found.add(stage, scores, parts, prompted.names[chunk], maps.cpu().numpy(), view)

    def _rows(self, answer: Answer, mentions: Sequence[Mention], reading: Reading) -> Tensor:
        """The attention of every name, [O, N]."""
        first = reading.layers[0]
        tokens = first.key if isinstance(first, QueryKey) else first.values  # [.., N, ..]
        weights = row_weights(mentions, answer.spans, reading.start, tokens.shape[1], self.options.rows)
        return attention_rows(reading.layers, weights.to(tokens.device), self.options.flow, reading.valid)

    def _sampler(self, size: tuple[int, int]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Draws points anew on maps [O, R, C] that points were drawn on before."""
        options = self.options.prompts.for_treated_maps()

        def sample(maps: Tensor) -> tuple[Tensor, Tensor]:
            prompts = sample_points(maps, options)
            return _in_pixels(prompts.points, size), prompts.labels

        return sample

    def _merge(self, found: Proposals, answers: list[dict[str, str]]) -> Detections:
        every = found.as_detections(answers)
        kept = merge(every.boxes, every.scores, every.names, every.run_lengths, self.options.merge)
        best = [int(index) for index in kept if every.scores[index] >= self.options.score_thr]
        return dataclasses.replace(every.select(best), maps=found.maps_of(best))


def _chunks(count: int, size: tuple[int, int]) -> Iterator[slice]:
    """Objects that are segmented together: as many as the budget of decoded masks has room for."""
    at_once = max(1, min(MOST_AT_ONCE, MASK_BUDGET // (size[0] * size[1])))
    for start in range(0, count, at_once):
        yield slice(start, min(start + at_once, count))


def _in_pixels(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Points (x, y) as fractions of a view of ``size`` (H, W), in its pixels."""
    return points * points.new_tensor([size[1], size[0]])


def _check_protocol(name: str, value: object, protocol: type) -> None:
    if not isinstance(value, protocol):
        wanted = ', '.join(sorted(n for n in vars(protocol) if not n.startswith('_')))
        raise TypeError(
            f'{name} must have the methods {wanted} (atss_ext.vlsam.protocols.{protocol.__name__}), but is a '
            f'{type(value).__name__}.'
        )
