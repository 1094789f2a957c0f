"""Training batches: each depends on the seed and its step alone, so that a resumed run sees the same ones."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scene_cache import Scenes
from scene_views import SceneView, part_view, patch_owners, whole_view
from torch import Tensor

from atss_ext.vlsam.world.processor import conversation
from atss_ext.vlsam.world.scenes import QUESTIONS, SPEC, reading_order, sentence

_UNKNOWN_WORDS = 0.15
IGNORED = -100


class Batch(NamedTuple):
    """B scenes, questions and answers; shorter ones are padded behind, where causal attention never looks.

    Attributes:
        pixels: float32 [B, 3, H, W], as the processor makes them.
        tokens: int64 [B, N].
        targets: int64 [B, N], the next token of the answer, -100 elsewhere.
        categories: int64 [B, P], what each patch shows; 0 background, -100 unsure.
        orders: int64 [B, P], the place of the patch's object in the sentence, from 1; 0 and -100 as before.
    """

    pixels: Tensor
    tokens: Tensor
    targets: Tensor
    categories: Tensor
    orders: Tensor


class Batches:
    """Makes batches.

    Args:
        scenes: to choose from.
        processor: of the model.
        seed: of the choice.
        size: B.
        patch: side of a patch, pixels.
        parts: share of enlarged parts of scenes among the pictures.
        names: category names; id 1 first.
    """

    def __init__(
        self,
        scenes: Scenes,
        processor: Any,
        seed: int,
        size: int,
        patch: int,
        parts: float = 0.0,
        names: Sequence[str] = SPEC.category_names,
    ) -> None:
        self.scenes, self.seed, self.size, self.names = scenes, seed, size, names
        self.patch, self.parts = patch, parts
        self.tokenizer = processor.tokenizer
        blank = np.zeros(scenes.images.shape[1:], np.uint8)
        self.prompts = [
            processor(
                images=blank,
                text=processor.apply_chat_template(conversation(question), add_generation_prompt=True),
                add_special_tokens=False,
            )['input_ids'][0]
            for question in QUESTIONS
        ]
        self.image_token = processor.image_token_id
        self._answers: dict[tuple[int, ...], list[int]] = {}

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        chosen = np.sort(rng.integers(0, len(self.scenes.images), self.size))
        images, sequences, grids = [], [], []
        for index in chosen.tolist():
            view = self._view(index, rng)
            order = reading_order(view.boxes)
            images.append(view.image)
            grids.append(_label_patches(patch_owners(view, self.patch), view.categories, order))
            sequences.append((self._prompt(rng), self._answer(view.categories[order])))
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        categories, orders = torch.from_numpy(np.stack(grids)).unbind(1)
        return Batch(pixels.contiguous(), *self._pack(sequences), categories, orders)

    def _view(self, index: int, rng: np.random.Generator) -> SceneView:
        mirror, part = rng.random(2) < (0.5, self.parts)
        view = whole_view(*(values[index] for values in self.scenes), mirror=bool(mirror))
        if part:
            height, width = view.owners.shape
            view = part_view(view, int(rng.integers(width // 2 + 1)), int(rng.integers(height // 2 + 1)))
        return view

    def _prompt(self, rng: np.random.Generator) -> list[int]:
        tokens = np.array(self.prompts[rng.integers(len(self.prompts))])
        last = np.flatnonzero(tokens == self.image_token)[-1]
        words = np.arange(last + 1, len(tokens) - 2)  # the question, without "assistant:"
        if rng.random() < 0.5:  # users have words of their own
            tokens[words[rng.random(words.size) < _UNKNOWN_WORDS]] = self.tokenizer.unk_token_id
        return tokens.tolist()

    def _answer(self, ids: NDArray[np.uint8]) -> list[int]:
        key = tuple(ids.tolist())
        if key not in self._answers:
            text = sentence([self.names[i - 1] for i in key])
            tokens = self.tokenizer(text, add_special_tokens=False)['input_ids']
            self._answers[key] = [*tokens, self.tokenizer.eos_token_id]
        return self._answers[key]

    def _pack(self, sequences: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
        longest = max(len(prompt) + len(answer) for prompt, answer in sequences)
        tokens = torch.full((len(sequences), longest), self.tokenizer.pad_token_id)
        targets = torch.full((len(sequences), longest), IGNORED)
        for row, (prompt, answer) in enumerate(sequences):
            end = len(prompt) + len(answer)
            tokens[row, :end] = torch.tensor(prompt + answer)
            targets[row, len(prompt) - 1 : end - 1] = torch.tensor(answer)
        return tokens, targets


def _label_patches(
    owners: NDArray[np.uint8], ids: NDArray[np.uint8], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[2, R * C]: category and place in the sentence of each patch."""
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(1, len(order) + 1)
    table = np.full((2, 256), IGNORED, np.int64)
    table[:, 0] = 0
    table[0, 1 : len(ids) + 1], table[1, 1 : len(ids) + 1] = ids, places
    return table[:, owners.reshape(-1)]
