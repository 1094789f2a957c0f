"""The whole of VL-SAM with transformers' own classes at tiny size, from folders, as a user names them.

Weights that have learned something cannot be fetched here: the vision-language model is taught one sentence
in the test, the segmenter keeps its random weights. What is right is then not which pixels it finds, but that
every step hands on what the next one needs, and what a result is made of.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sams import tiny_sam
from tiny_vlms import tiny_vlm
from torch.nn.functional import cross_entropy

from atss_ext.vlsam import load
from atss_ext.vlsam.attention import FlowOptions, attention_rows, grid_map
from atss_ext.vlsam.names import Mention, row_weights
from atss_ext.vlsam.prompts import sample_points
from atss_ext.vlsam.segmenter import TransformersSegmenter
from atss_ext.vlsam.vlm import TransformersVLM
from atss_ext.vlsam.vlm.inputs import append_tokens

QUESTION = 'List all objects.'
SENTENCE = 'a dog, a red circle'


def scene() -> np.ndarray:
    rows, columns = np.mgrid[:60, :84]
    picture = np.stack([rows * 4, columns * 3, (rows + columns) % 256], -1).astype(np.uint8)
    picture[10:40, 20:50] = (220, 30, 30)
    return picture


def teach(vlm: TransformersVLM, image: np.ndarray) -> None:
    """Make the sentence the only thing the model says to the question."""
    tokens = vlm.processor.tokenizer(SENTENCE, add_special_tokens=False)['input_ids']
    tokens = [*tokens, vlm.processor.tokenizer.eos_token_id]
    inputs = vlm.prompts.preprocess(vlm.prompts.prompt(image, QUESTION)).inputs
    inputs = append_tokens(inputs, tokens)
    optimizer = torch.optim.Adam(vlm.model.parameters(), lr=5e-3)
    for _ in range(150):
        logits = vlm.model(**inputs, use_cache=False).logits[0, -len(tokens) - 1 : -1]
        loss = cross_entropy(logits, torch.tensor(tokens))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.01:
            return


@pytest.mark.parametrize(
    ('vlm_family', 'sam_family'),
    [('llava', 'sam'), ('qwen2_5_vl', 'sam2'), ('internvl', 'sam_hq'), ('smolvlm', 'edgetam')],
)
def test_from_folders_to_objects(tmp_path, vlm_family, sam_family):
    model, processor = tiny_vlm(vlm_family)
    vlm = TransformersVLM(model, processor, temperature=0)
    teach(vlm, scene())
    model.save_pretrained(tmp_path / 'vlm')
    processor.save_pretrained(tmp_path / 'vlm')
    sam, sam_processor = tiny_sam(sam_family)
    sam.save_pretrained(tmp_path / 'sam')
    sam_processor.save_pretrained(tmp_path / 'sam')
    path = tmp_path / 'scene.png'
    Image.fromarray(scene()).save(path)

    settings = {'corners': False, 'questions': [QUESTION], 'merge': {'iou_threshold': 1.0}}
    found = load(str(tmp_path / 'vlm'), str(tmp_path / 'sam'), refine={'resample': 0}, **settings)(path)

    assert [answer['text'] for answer in found.answers] == [SENTENCE]
    assert set(found.names) <= {'dog', 'red circle'}
    assert len(found) >= 1
    for name, masks, ious, name_probability in by_hand(vlm, TransformersSegmenter(sam, sam_processor)):
        rows = [index for index, other in enumerate(found.names) if other == name]
        assert {found.mask(index).tobytes() for index in rows} == {m.tobytes() for m in masks if m.any()}
        for index in rows:
            assert found.parts['name'][index] == pytest.approx(name_probability, rel=1e-4)
            assert any(found.parts['iou'][index] == pytest.approx(iou, abs=1e-6) for iou in ious)


def by_hand(vlm: TransformersVLM, segmenter: TransformersSegmenter):
    """The steps one after another: for each name its masks (first, fed back), their IoUs, the probability."""
    (answer,) = vlm.answer([scene()], [QUESTION], [0])
    reading = vlm.read(answer)
    names = ('dog', 'red circle')
    mentions = [Mention(name, SENTENCE.index(name), SENTENCE.index(name) + len(name)) for name in names]
    tokens = [
        [i for i, (begin, end) in enumerate(answer.spans) if begin < mention.end and end > mention.start]
        for mention in mentions
    ]
    weights = row_weights(mentions, answer.spans, reading.start, reading.layers[0].query.shape[1])
    for row, own in zip(weights, tokens, strict=True):
        assert row.nonzero()[:, 0].tolist() == [reading.start + token - 1 for token in own]
    rows = attention_rows(reading.layers, weights, FlowOptions(), reading.valid)
    prompts = sample_points(grid_map(rows, reading.grids))
    points = prompts.points * torch.tensor([84.0, 60.0])
    embedding = segmenter.embed(scene())
    one = segmenter.segment(embedding, points, prompts.labels)
    two = segmenter.segment(embedding, points, prompts.labels, mask_logits=one.mask_logits)
    for index, own in enumerate(tokens):
        masks = [stage.masks[index].numpy() for stage in (one, two)]
        ious = [float(stage.ious[index]) for stage in (one, two)]
        yield names[index], masks, ious, float(reading.log_probs[own].mean().exp())
