"""What the capturing pass keeps, against transformers' own eager attention."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlms import FAMILIES, tiny_vlm

from atss_ext.vlsam.protocols import QueryKey, VlsamError
from atss_ext.vlsam.vlm import TransformersVLM
from atss_ext.vlsam.vlm.capture import NAME, Recorder, capturing

QUESTION = 'List all objects in the image.'


def make_image(height: int = 100, width: int = 150, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope='module', params=FAMILIES)
def vlm(request) -> TransformersVLM:
    return TransformersVLM(*tiny_vlm(request.param), max_new_tokens=6, temperature=1.0, top_p=1.0)


def direct_inputs(vlm: TransformersVLM, image: np.ndarray, answer_ids: list[int]) -> dict[str, torch.Tensor]:
    """Prompt and answer as one sequence, by transformers alone."""
    message = {'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': QUESTION}]}
    text = vlm.processor.apply_chat_template([message], add_generation_prompt=True)
    options = vlm.prompts.options  # LLaVA-1.5 is shown the whole image.
    inputs = dict(vlm.processor(images=[Image.fromarray(image)], text=[text], return_tensors='pt', **options))
    length = inputs['input_ids'].size(1)
    inputs['input_ids'] = torch.cat([inputs['input_ids'], torch.tensor([answer_ids])], 1)
    for name, value in (('attention_mask', 1), ('mm_token_type_ids', 0)):
        if name in inputs:
            tail = torch.full((1, len(answer_ids)), value)
            inputs[name] = torch.cat([inputs[name], tail], 1)
    assert inputs['input_ids'].size(1) == length + len(answer_ids)
    return inputs


def probabilities_of(layer: QueryKey) -> torch.Tensor:
    """softmax(scale q k) under a causal mask, each key head repeated for its neighbouring query heads."""
    query, key = layer.query.double(), layer.key.double()
    heads, length, _ = query.shape
    repeated = torch.stack([key[head // (heads // len(key))] for head in range(heads)])
    scores = query @ repeated.transpose(1, 2) * layer.scale
    future = torch.ones(length, length).triu(1).bool()
    return scores.masked_fill(future, -torch.inf).softmax(-1)


@torch.no_grad()
def test_attention_and_log_probs_equal_transformers(vlm):
    """Queries and keys give eager's attention weights; log probabilities are those of a full forward pass."""
    image = make_image()
    (answer,) = vlm.answer([image], [QUESTION], [3])
    reading = vlm.read(answer)
    inputs = direct_inputs(vlm, image, list(answer.token_ids))
    vlm.model.set_attn_implementation({'text_config': 'eager'})
    try:
        expected = vlm.model(**inputs, output_attentions=True, use_cache=False)
    finally:
        vlm.model.set_attn_implementation({'text_config': 'sdpa'})

    assert len(reading.layers) == len(expected.attentions) == 2
    for layer, attention in zip(reading.layers, expected.attentions, strict=True):
        assert (probabilities_of(layer) - attention[0]).abs().max() < 1e-5
        # Uniform weights would agree whatever the keys were.
        assert attention[0, :, -1].max() > 3 / attention.size(-1)

    length = inputs['input_ids'].size(1)
    assert reading.start == length - len(answer.token_ids)
    log_probs = expected.logits[0].float().log_softmax(-1)
    direct = [log_probs[reading.start + t - 1, token] for t, token in enumerate(answer.token_ids)]
    torch.testing.assert_close(reading.log_probs, torch.stack(direct), rtol=0, atol=1e-5)
    assert reading.log_probs.dtype == torch.float32


def test_grouped_keys_are_kept_once(vlm):
    """Where the family has GQA, keys are those of two heads and not repeated."""
    (answer,) = vlm.answer([make_image()], [QUESTION], [0])
    layer = vlm.read(answer).layers[0]
    key_heads = vlm.model.config.text_config.num_key_value_heads
    assert key_heads == (4 if vlm.model.config.model_type == 'llava' else 2)
    assert (layer.query.size(0), layer.key.size(0)) == (4, key_heads)


def test_generation_is_untouched_by_reading(vlm):
    """The attention implementation is back after a pass, and was never changed in the vision tower."""
    image = make_image()
    seen = []
    tower = next(
        module
        for name, module in vlm.model.named_modules()
        if name.endswith(('vision_tower', 'visual')) or name == 'model.vision_model'
    )
    handle = tower.register_forward_pre_hook(
        lambda module, _: seen.append(module.config._attn_implementation)
    )
    (before,) = vlm.answer([image], [QUESTION], [1])
    vlm.read(before)
    handle.remove()
    (after,) = vlm.answer([image], [QUESTION], [1])
    assert after.token_ids == before.token_ids
    assert set(seen) == {'sdpa'}
    assert vlm.model.config.text_config._attn_implementation == 'sdpa'


def test_error_in_the_middle_restores_attention(vlm):
    image = make_image()
    (before,) = vlm.answer([image], [QUESTION], [1])

    def fail(*_):
        raise ZeroDivisionError('planted')

    handle = vlm.model.lm_head.register_forward_pre_hook(fail)
    try:
        with pytest.raises(ZeroDivisionError, match='planted'):
            vlm.read(before)
    finally:
        handle.remove()
    assert vlm.model.config.text_config._attn_implementation == 'sdpa'
    assert vlm.answer([image], [QUESTION], [1])[0].token_ids == before.token_ids
    assert len(vlm.read(before).layers) == 2


def test_a_model_in_another_implementation_gets_it_back():
    vlm = TransformersVLM(*tiny_vlm('llava'), max_new_tokens=3)
    vlm.model.set_attn_implementation('eager')
    (answer,) = vlm.answer([make_image()], [QUESTION], [1])
    vlm.read(answer)
    config = vlm.model.config
    assert (config.text_config._attn_implementation, config.vision_config._attn_implementation) == (
        'eager',
        'eager',
    )


def test_nothing_is_recorded_outside_of_a_pass(vlm):
    """Our attention function computes as sdpa does where nobody listens."""
    inputs = direct_inputs(vlm, make_image(), [150, 151])
    with torch.no_grad():
        expected = vlm.model(**inputs).logits
        vlm.model.set_attn_implementation({'text_config': NAME})
        try:
            torch.testing.assert_close(vlm.model(**inputs).logits, expected, rtol=0, atol=0)
        finally:
            vlm.model.set_attn_implementation({'text_config': 'sdpa'})


def test_threads_read_what_one_reads_alone():
    vlm = TransformersVLM(*tiny_vlm('qwen2_vl'), max_new_tokens=4, temperature=1.0, top_p=1.0)
    images = [make_image(60 + 20 * i, 150 - 20 * i, i) for i in range(4)]
    answers = vlm.answer(images, [QUESTION] * 4, [0] * 4)
    alone = [vlm.read(answer) for answer in answers]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(vlm.read, answers * 3))
    for reading, expected in zip(together, alone * 3, strict=True):
        for layer, other in zip(reading.layers, expected.layers, strict=True):
            assert torch.equal(layer.query, other.query)
            assert torch.equal(layer.key, other.key)


def test_sliding_window_is_refused_when_it_matters():
    """A window shorter than the sequence hides tokens; one that is longer changes nothing."""
    model, processor = tiny_vlm('qwen2_vl')
    settings = model.config.text_config.to_dict()
    settings |= {'use_sliding_window': True, 'max_window_layers': 1, 'layer_types': None}
    for window, refused in ((16, True), (1000, False)):
        model, processor = tiny_vlm('qwen2_vl', text_config={**settings, 'sliding_window': window})
        assert model.config.text_config.layer_types == ['full_attention', 'sliding_attention']
        vlm = TransformersVLM(model, processor, max_new_tokens=3)
        (answer,) = vlm.answer([make_image()], [QUESTION], [0])
        if refused:
            with pytest.raises(VlsamError, match=r'layer 1 lets tokens see other ones .*sliding window'):
                vlm.read(answer)
        else:
            assert len(vlm.read(answer).layers) == 2


def test_attention_in_both_directions_is_refused():
    vlm = TransformersVLM(*tiny_vlm('llava'), max_new_tokens=3)
    (answer,) = vlm.answer([make_image()], [QUESTION], [0])
    vlm.model.model.language_model.layers[0].self_attn.is_causal = False
    with pytest.raises(VlsamError, match='layer 0 lets tokens see other ones'):
        vlm.read(answer)


def test_a_layer_without_attention_is_refused():
    class Skipped(torch.nn.Module):
        def forward(self, hidden_states, **_):
            return hidden_states

    vlm = TransformersVLM(*tiny_vlm('llava'), max_new_tokens=3)
    (answer,) = vlm.answer([make_image()], [QUESTION], [0])
    vlm.model.model.language_model.layers[1] = Skipped()
    with pytest.raises(VlsamError, match=r'attention of 1 layers was seen where the model has 2 .*\[1\]'):
        vlm.read(answer)


def test_a_layer_that_runs_twice_is_refused():
    vlm = TransformersVLM(*tiny_vlm('llava'), max_new_tokens=3)
    (answer,) = vlm.answer([make_image()], [QUESTION], [0])
    layers = vlm.model.model.language_model.layers
    layers[1] = layers[0]
    with pytest.raises(VlsamError, match='attends as layer 0, which is called twice'):
        vlm.read(answer)


@pytest.mark.parametrize('extra', ['softcap', 's_aux', 'position_bias'])
def test_weights_that_are_more_than_a_softmax_are_refused(extra):
    vlm = TransformersVLM(*tiny_vlm('llava'), max_new_tokens=3)
    (answer,) = vlm.answer([make_image()], [QUESTION], [0])
    attention = vlm.model.model.language_model.layers[1].self_attn
    forward = attention.forward
    attention.forward = lambda *args, **kwargs: forward(*args, **kwargs, **{extra: torch.ones(())})
    with pytest.raises(VlsamError, match=f'layer 1 attends with {extra}'):
        vlm.read(answer)


def causal_mask(length: int, hidden: float | bool) -> torch.Tensor:
    """[1, 1, N, N] as transformers hands masks over: bool, or zeros and a very negative number."""
    lower = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    return lower if isinstance(hidden, bool) else torch.zeros(lower.shape).masked_fill(~lower, hidden)


@pytest.mark.parametrize('hidden', [False, -torch.inf, torch.finfo(torch.float32).min], ids=str)
def test_masks_are_compared_with_the_causal_one(hidden):
    module = torch.nn.Module()
    module.layer_idx = 0
    query, key = torch.rand(1, 4, 6, 8), torch.rand(1, 2, 6, 8)
    mask = causal_mask(6, hidden)
    recorder = Recorder()
    recorder.record(module, query, key, mask, {'scaling': 0.25})
    (layer,) = recorder.layers(1)
    assert torch.equal(layer.query, query[0])
    assert torch.equal(layer.key, key[0])
    assert layer.scale == 0.25

    padded = mask.clone()
    padded[..., 0] = hidden if isinstance(hidden, float) else False
    for changed in (padded, torch.ones_like(mask) if mask.dtype == torch.bool else torch.zeros_like(mask)):
        with pytest.raises(VlsamError, match='lets tokens see other ones'):
            Recorder().record(module, query, key, changed, {})


def test_a_cache_or_a_batch_is_refused():
    module = torch.nn.Module()
    module.layer_idx = 0
    one = torch.rand(1, 4, 6, 8)
    for query, key in ((torch.rand(2, 4, 6, 8), torch.rand(2, 4, 6, 8)), (one[:, :, :1], one)):
        with pytest.raises(VlsamError, match='one whole sequence without a cache'):
            Recorder().record(module, query, key, None, {})


def test_capturing_nests_in_another_pass_without_mixing():
    model, _ = tiny_vlm('llava')
    with capturing(model) as outer:
        with capturing(model) as inner:
            assert inner is not outer
        assert model.config.text_config._attn_implementation == NAME
    assert model.config.text_config._attn_implementation == 'sdpa'
