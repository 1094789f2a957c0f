"""A stand-in for a vision-language model that follows a rule: it names the flat-coloured regions it is shown.

It can be no pretrained one (none can be fetched where the tests run). What it says and where it looks are
known exactly, so that a whole run of VL-SAM has one right result: every connected region of a colour of
``COLOURS`` is one object, named after its colour, and the positions that generate the name's words
attend to the grid cells the region covers, in proportion to how much of each.
"""

import re
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from scipy import ndimage

from atss_ext.vlsam.protocols import Answer, Image, Probabilities, Reading, TokenGrid

COLOURS = {'red square': (220, 30, 30), 'green square': (30, 180, 60), 'blue square': (40, 60, 220)}
BACKGROUND = (235, 235, 235)


class RuleVLM:
    """Names flat-coloured regions, from left to right.

    Args:
        cells: the image's tokens are a grid of cells x cells.
        sentence: how the names are put together.
        calls: counts the questions asked.
    """

    def __init__(self, cells: int = 16, separator: str = ', ') -> None:
        self.cells, self.separator = cells, separator
        self.questions: list[str] = []

    def answer(self, images: Sequence[Image], questions: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        """Name what is there; question and seed change nothing."""
        self.questions += questions
        return [self._answer(image) for image in images]

    def _answer(self, image: Image) -> Answer:
        regions = find_regions(image)
        text = self.separator.join(f'a {name}' for name, _ in regions)
        spans = [match.span() for match in re.finditer(r' ?\w+|,', text)]
        return Answer(text, spans, list(range(len(spans))), regions)

    def read(self, answer: Answer) -> Reading:
        """One head in one layer; the answer's tokens stand behind the image's and one token of a question."""
        image_tokens, words = self.cells**2, len(answer.spans)
        start = image_tokens + 2
        length = start + words
        attention = torch.tril(torch.ones(length, length, dtype=torch.float64))
        attention /= attention.sum(1, keepdim=True)
        for rows, coverage in zip(self._speakers(answer, start), self._coverages(answer), strict=True):
            attention[rows] = 0
            attention[rows, 1 : 1 + image_tokens] = coverage / coverage.sum()
        positions = torch.arange(1, 1 + image_tokens).reshape(self.cells, self.cells)
        log_probs = torch.full((words,), -0.25)
        return Reading([Probabilities(attention[None].float())], start, log_probs, [TokenGrid(positions)])

    def _speakers(self, answer: Answer, start: int) -> list[list[int]]:
        """The positions that generate the words of each name, behind its article."""
        places = [match.span(1) for match in re.finditer(r'\ba ([^,]+)', answer.text)]
        return [
            [start + t - 1 for t, (begin, end) in enumerate(answer.spans) if begin < last and end > first]
            for first, last in places
        ]

    def _coverages(self, answer: Answer) -> list[torch.Tensor]:
        grid = (self.cells, self.cells)
        return [
            torch.from_numpy(cv2.resize(mask.astype(np.float64), grid, interpolation=cv2.INTER_AREA).ravel())
            for _, mask in answer.prompt
        ]


def find_regions(image: Image) -> list[tuple[str, np.ndarray]]:
    """(name, mask [H, W]) of every region, from left to right."""
    regions = []
    for name, colour in COLOURS.items():
        labels, count = ndimage.label((image == np.array(colour, np.uint8)).all(-1))
        regions += [(name, labels == number) for number in range(1, count + 1)]
    return sorted(regions, key=lambda region: tuple(np.argwhere(region[1]).mean(0)[::-1]))


def draw(size: tuple[int, int], boxes: dict[str, Sequence[tuple[int, int, int, int]]]) -> Image:
    """A picture [H, W, 3] with filled boxes (x1, y1, x2, y2) by name."""
    image = np.full((*size, 3), BACKGROUND, np.uint8)
    for name, places in boxes.items():
        for x1, y1, x2, y2 in places:
            image[y1:y2, x1:x2] = COLOURS[name]
    return image
