"""Models that remember: what several settings ask of one image is answered, read and embedded once."""

from collections.abc import Sequence

from torch import Tensor

from atss_ext.vlsam.protocols import (
    Answer,
    Embedding,
    Image,
    Reading,
    Segmentation,
    Segmenter,
    VisionLanguageModel,
)


class SharedVLM:
    """A vision-language model that gives the same answer and reading again without computing them again.

    Args:
        inner: the model.
    """

    def __init__(self, inner: VisionLanguageModel) -> None:
        self.inner = inner
        self.forget()

    def forget(self) -> None:
        """Free what is remembered; call it after every image."""
        self._answers: dict[tuple[bytes, tuple[int, ...], str, int], Answer] = {}
        self._readings: dict[int, tuple[Answer, Reading]] = {}

    def answer(self, images: Sequence[Image], questions: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        """As the model does; new questions are asked together."""
        keys = [
            (image.tobytes(), image.shape, question, seed)
            for image, question, seed in zip(images, questions, seeds, strict=True)
        ]
        new = {key: index for index, key in enumerate(keys) if key not in self._answers}
        chosen = list(new.values())
        if chosen:
            said = self.inner.answer(*([values[i] for i in chosen] for values in (images, questions, seeds)))
            self._answers.update(zip(new, said, strict=True))
        return [self._answers[key] for key in keys]

    def read(self, answer: Answer) -> Reading:
        """As the model does."""
        if id(answer) not in self._readings:
            self._readings[id(answer)] = answer, self.inner.read(answer)  # the answer keeps its id its own
        return self._readings[id(answer)][1]


class SharedSegmenter:
    """A segmenter that embeds an image once.

    Args:
        inner: the segmenter.
    """

    def __init__(self, inner: Segmenter) -> None:
        self.inner = inner
        self.forget()

    def forget(self) -> None:
        """Free what is remembered; call it after every image."""
        self._embeddings: dict[tuple[bytes, tuple[int, ...]], Embedding] = {}

    def embed(self, image: Image) -> Embedding:
        """As the segmenter does."""
        key = image.tobytes(), image.shape
        if key not in self._embeddings:
            self._embeddings[key] = self.inner.embed(image)
        return self._embeddings[key]

    def segment(
        self,
        embedding: Embedding,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        boxes: Tensor | None = None,
        multimask: bool = True,
    ) -> Segmentation:
        """As the segmenter does."""
        return self.inner.segment(embedding, points, labels, mask_logits, boxes, multimask)
