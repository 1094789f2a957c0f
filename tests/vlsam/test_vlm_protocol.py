"""A model of one's own: two methods, no transformers."""

import numpy as np
import pytest
import torch
from tiny_vlms import tiny_vlm

from atss_ext.vlsam.protocols import (
    Answer,
    Probabilities,
    Reading,
    TokenGrid,
    VisionLanguageModel,
    VlsamError,
)
from atss_ext.vlsam.vlm import TransformersVLM, probabilities


class OneWord:
    """Says 'dog' of every image, and looks at the brightest of 2 x 2 quarters while it does."""

    def answer(self, images, questions, seeds):
        return [Answer('dog', [(0, 3)], [7], image) for image in images]

    def read(self, answer):
        image = answer.prompt.astype(float)
        height, width = image.shape[0] // 2, image.shape[1] // 2
        quarters = image[: 2 * height, : 2 * width].reshape(2, height, 2, width, 3).mean((1, 3, 4))
        # Sequence: four image tokens, then the word.
        attention = torch.eye(5)[None, None].repeat(1, 2, 1, 1)
        attention[..., 4, :4] = torch.from_numpy(quarters).flatten() / max(quarters.sum(), 1)
        attention[..., 4, 4] = 0
        grid = TokenGrid(torch.arange(4).view(2, 2))
        return Reading(probabilities([attention] * 3), 4, torch.zeros(1), [grid])


def test_a_class_with_two_methods_is_a_model():
    model = OneWord()
    assert isinstance(model, VisionLanguageModel)
    image = np.zeros((6, 8, 3), np.uint8)
    image[3:, :4] = 255  # bottom left
    (answer,) = model.answer([image], ['What?'], [0])
    reading = model.read(answer)
    row = reading.layers[0].values[0, reading.start]
    assert row[reading.grids[0].positions].tolist() == [[0, 0], [1, 0]]


def test_ours_is_a_model_and_others_are_not():
    assert isinstance(TransformersVLM(*tiny_vlm('llava')), VisionLanguageModel)
    assert not isinstance(object(), VisionLanguageModel)


def test_eager_attentions_become_layers():
    """What ``output_attentions=True`` gives, batch dimension or not, without a copy."""
    model, processor = tiny_vlm('smolvlm')
    model.set_attn_implementation('eager')
    ids = torch.tensor([processor.tokenizer.encode('a red circle', add_special_tokens=False)])
    with torch.no_grad():
        attentions = model(input_ids=ids, output_attentions=True).attentions
    layers = probabilities(attentions)
    assert [type(layer) for layer in layers] == [Probabilities, Probabilities]
    for layer, attention in zip(layers, attentions, strict=True):
        assert layer.values.data_ptr() == attention.data_ptr()
        assert layer.values.shape == attention.shape[1:]
        torch.testing.assert_close(layer.values.sum(-1), torch.ones(4, ids.size(1)))
    assert torch.equal(probabilities([attentions[0][0]])[0].values, attentions[0][0])


def test_attentions_that_are_none():
    with pytest.raises(VlsamError, match='gave no attentions; load it with attn_implementation="eager"'):
        probabilities(())
    for shape in ((2, 4, 6, 6), (4, 1, 6), (6, 6)):
        with pytest.raises(VlsamError, match=r'attention of layer 1 must be \[1, H, N, N\]'):
            probabilities([torch.zeros(4, 6, 6), torch.zeros(shape)])
