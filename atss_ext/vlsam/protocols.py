"""What the steps of VL-SAM hand to each other, and what a user's own VLM or segmenter has to offer.

Nothing here knows a library of models: a vision-language model is whatever can :class:`answer
<VisionLanguageModel>` a question about an image and show its attention, a segmenter whatever turns points
into masks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.uint8]  # RGB [H, W, 3]


class VlsamError(Exception):
    """Something the user can mend; the message is one sentence with the offending value and the way out."""


class QueryKey(NamedTuple):
    """What one layer's attention is made of, for one sequence of N tokens.

    Attributes:
        query: [H, N, D] any float dtype, after the rotary embedding.
        key: [G, N, D], G dividing H: each key head serves H / G neighbouring query heads (GQA).
        scale: factor of the products, usually D ** -0.5.
    """

    query: Tensor
    key: Tensor
    scale: float


class Probabilities(NamedTuple):
    """One layer's attention from a model that only gives it ready made (``output_attentions``).

    Attributes:
        values: [H, N, N], row i the weights of query i; rows sum to one over the keys i may see.
    """

    values: Tensor


Layer = QueryKey | Probabilities


class TokenGrid(NamedTuple):
    """Where the image tokens of one part of the image stand in the sequence.

    Attributes:
        positions: int64 [R, C], the place in the sequence of the token in row r and column c; -1 where the
            grid has no token (padding of a tile, say).
        box: (x1, y1, x2, y2), the part of the image the grid covers, as fractions of its width and height.
            It may reach outside of 0..1 where the model sees a border.
    """

    positions: Tensor
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


class Answer(NamedTuple):
    """What a VLM said; T generated tokens.

    Attributes:
        text: the tokens decoded, without special ones.
        spans: T pairs (start, end), the characters of ``text`` each token stands for; both are
            non-decreasing, and a token without a character of its own has start == end.
        token_ids: the T tokens.
        prompt: whatever the model needs to read its own answer again.
        finished: False where the model was stopped before it came to an end of its own; the last word may
            then be a part of one.
    """

    text: str
    spans: Sequence[tuple[int, int]]
    token_ids: Sequence[int]
    prompt: Any
    finished: bool = True


class Reading(NamedTuple):
    """What the attention of one answer looked like when the model read it again (teacher forcing).

    Attributes:
        layers: L, from the first to the last.
        start: the place in the sequence of the answer's first token; token t stands at start + t and was
            generated at start + t - 1.
        log_probs: float32 [T], of each token of the answer under the model, at temperature one.
        grids: the image's tokens; a model that sees a whole image and tiles has several.
        valid: bool [N], False at padding; None where every token counts.
    """

    layers: Sequence[Layer]
    start: int
    log_probs: Tensor
    grids: Sequence[TokenGrid]
    valid: Tensor | None = None


@runtime_checkable
class VisionLanguageModel(Protocol):
    """A model that answers questions about an image and lets its attention be seen."""

    def answer(self, images: Sequence[Image], questions: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        """Answer question i about image i.

        Args:
            images: B images.
            questions: B questions.
            seeds: B seeds of the sampling; an answer depends on its own image, question and seed alone.

        Returns:
            B answers.

        Raises:
            VlsamError: an image the model cannot take.
        """
        ...

    def read(self, answer: Answer) -> Reading:
        """Read an answer again, in one pass, and keep what its attention is made of.

        Raises:
            VlsamError: the image's tokens in the sequence do not match the grid the model should see.
        """
        ...


class Segmentation(NamedTuple):
    """One mask for each of O objects.

    Attributes:
        masks: bool [O, H, W], at the size of the embedded image.
        ious: float32 [O], how well the segmenter believes each mask fits (0..1).
        mask_logits: float32 [O, h, w], low resolution, to be handed back as a mask prompt.
    """

    masks: Tensor
    ious: Tensor
    mask_logits: Tensor


class Embedding(NamedTuple):
    """An image as a segmenter keeps it between calls.

    Attributes:
        size: (H, W) of the image.
        features: whatever the segmenter needs.
    """

    size: tuple[int, int]
    features: Any


@runtime_checkable
class Segmenter(Protocol):
    """A model that turns points into masks."""

    def embed(self, image: Image) -> Embedding:
        """Look at an image once."""
        ...

    def segment(
        self,
        embedding: Embedding,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        boxes: Tensor | None = None,
        multimask: bool = True,
    ) -> Segmentation:
        """Segment O objects in one call of the decoder.

        Args:
            embedding: of the image.
            points: float32 [O, P, 2], (x, y) in pixels of the image; may be [O, 0, 2] where boxes are given.
            labels: int64 [O, P]: 1 on the object, 0 beside it, -10 no point (padding).
            mask_logits: float32 [O, h, w] of an earlier call.
            boxes: float32 xyxy [O, 4] in pixels.
            multimask: let the model propose several masks an object and take the one it believes in most;
                False takes its single-mask output.

        Returns:
            one mask an object; no objects in, no objects out.
        """
        ...
