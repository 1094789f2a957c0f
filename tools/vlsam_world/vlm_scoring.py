"""How well the small model names what is there."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from atss_ext.vlsam.world.processor import conversation
from atss_ext.vlsam.world.scenes import NOTHING, QUESTIONS


class NameScore(NamedTuple):
    """Precision and recall of names, counted as often as they are said, over all scenes together."""

    precision: float
    recall: float
    exact: float  # share of scenes whose sentence is right to the letter


@torch.no_grad()
def answers(
    model: Any, processor: Any, images: Sequence[NDArray[np.uint8]], question: str = QUESTIONS[0]
) -> list[str]:
    """What the model says about each image, greedily.

    Args:
        model: a ``LlavaForConditionalGeneration``.
        processor: its processor.
        images: RGB [H, W, 3].
        question: asked about each.
    """
    prompt = processor.apply_chat_template(conversation(question), add_generation_prompt=True)
    said: list[str] = []
    model.eval()
    for start in range(0, len(images), 50):
        batch = list(images[start : start + 50])
        inputs = processor(
            images=batch, text=[prompt] * len(batch), return_tensors='pt', add_special_tokens=False
        ).to(model.device)
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=40)
        said += processor.batch_decode(tokens[:, inputs['input_ids'].shape[1] :], skip_special_tokens=True)
    return said


def split_names(text: str) -> list[str]:
    """The names in a sentence of the world; the parser for any model's text is another one."""
    parts = [re.sub(r'^an? ', '', part.strip()) for part in text.split(',')]
    return [part for part in parts if part and part != NOTHING]


def score_names(said: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> NameScore:
    """Compare the names said about each scene with the true ones, as multisets."""
    hits = sum((Counter(a) & Counter(b)).total() for a, b in zip(said, true, strict=True))
    all_said, all_true = sum(map(len, said)), sum(map(len, true))
    exact = sum(list(a) == list(b) for a, b in zip(said, true, strict=True))
    return NameScore(hits / max(all_said, 1), hits / max(all_true, 1), exact / max(len(true), 1))
