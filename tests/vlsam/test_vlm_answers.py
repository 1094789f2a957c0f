"""Answers of every family: independent of their batch, safe for odd input."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlms import FAMILIES, byte_tokenizer, tiny_vlm

from atss_ext.vlsam.protocols import Answer, VlsamError
from atss_ext.vlsam.vlm import TransformersVLM

QUESTIONS = ('What?', 'List all objects in the image, one by one.', 'A long question ' * 4)
SIZES = ((100, 150), (210, 90), (64, 64))
SEEDS = (1, 2, 3)


def make_images() -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture(scope='module', params=FAMILIES)
def vlm(request) -> TransformersVLM:
    return TransformersVLM(*tiny_vlm(request.param), max_new_tokens=12, temperature=1.0, top_p=0.9)


def same(first: Answer, second: Answer) -> bool:
    return (first.text, list(first.spans), list(first.token_ids), first.prompt.text) == (
        second.text,
        list(second.spans),
        list(second.token_ids),
        second.prompt.text,
    )


def test_a_batch_is_its_parts(vlm):
    """Three images of other sizes with questions of other lengths: together, one by one, and backwards."""
    images = make_images()
    together = vlm.answer(images, QUESTIONS, SEEDS)
    backwards = vlm.answer(images[::-1], QUESTIONS[::-1], SEEDS[::-1])[::-1]
    for index, answer in enumerate(together):
        (alone,) = vlm.answer([images[index]], [QUESTIONS[index]], [SEEDS[index]])
        assert same(answer, alone)
        assert same(answer, backwards[index])
        assert 1 <= len(answer.token_ids) <= 12
        assert ''.join(answer.text[start:end] for start, end in answer.spans) == answer.text


def test_answers_come_from_seed_image_and_question(vlm):
    image = make_images()[0]
    first, again, other = vlm.answer([image] * 3, ['What?'] * 3, [5, 5, 6])
    assert same(first, again)
    assert first.token_ids != other.token_ids


def test_batches_larger_than_batch_size_are_cut_up():
    model, processor = tiny_vlm('llava')
    vlm = TransformersVLM(model, processor, max_new_tokens=4, batch_size=2, temperature=1.0, top_p=1.0)
    sizes = []
    generate = model.generate
    model.generate = lambda **inputs: sizes.append(len(inputs['input_ids'])) or generate(**inputs)
    images = make_images() + make_images()[:2]
    answers = vlm.answer(images, ['What?'] * 5, range(5))
    assert sizes == [2, 2, 1]
    assert all(
        same(a, vlm.answer([i], ['What?'], [s])[0])
        for s, (a, i) in enumerate(zip(answers, images, strict=True))
    )
    assert vlm.answer([], [], []) == []


def test_temperature_zero_is_the_greedy_decoding_of_transformers(vlm):
    """generate() on the processor's own inputs, placeholders suppressed, gives the same tokens."""
    greedy = TransformersVLM(vlm.model, vlm.processor, max_new_tokens=8, temperature=0)
    image = make_images()[1]
    (answer,) = greedy.answer([image], ['List all objects.'], [0])
    message = {'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'List all objects.'}]}
    text = vlm.processor.apply_chat_template([message], add_generation_prompt=True)
    # LLaVA-1.5 is shown the whole image.
    options = greedy.prompts.options
    inputs = vlm.processor(images=[Image.fromarray(image)], text=[text], return_tensors='pt', **options)
    names = ('image_token_id', 'video_token_id', 'vision_start_token_id', 'vision_end_token_id')
    banned = [getattr(vlm.model.config, name) for name in names if hasattr(vlm.model.config, name)]
    ids = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=8, suppress_tokens=banned)
    assert list(answer.token_ids) == ids[0, inputs['input_ids'].size(1) :].tolist()


def test_what_a_checkpoint_says_about_sampling_is_set_aside():
    """A repetition penalty would also count the padding of a batch; it has no say."""
    model, processor = tiny_vlm('qwen2_vl')
    vlm = TransformersVLM(model, processor, max_new_tokens=10, temperature=0)
    before = vlm.answer(make_images(), QUESTIONS, SEEDS)
    assert any(len(set(answer.token_ids)) < len(answer.token_ids) for answer in before)  # it repeats itself
    model.generation_config.update(repetition_penalty=1.8, temperature=0.01, top_k=1, no_repeat_ngram_size=1)
    after = vlm.answer(make_images(), QUESTIONS, SEEDS)
    assert all(same(a, b) for a, b in zip(before, after, strict=True))


def steer(model, *rows: list[int]) -> None:
    """Let the model say these tokens in each row of a batch, then the last one for ever."""
    step = {'count': 0}

    def force(_, args, output):
        logits = torch.zeros_like(output)
        for row, tokens in zip(logits, rows, strict=False):
            row[..., tokens[min(step['count'], len(tokens) - 1)]] = 100.0
        step['count'] += 1
        return logits

    model.lm_head.register_forward_hook(force)


def test_empty_and_runaway_answers():
    model, processor = tiny_vlm('llava')
    end = processor.tokenizer.eos_token_id
    steer(model, [end])
    vlm = TransformersVLM(model, processor)
    (answer,) = vlm.answer(make_images()[:1], ['?'], [0])
    assert (answer.text, list(answer.spans), list(answer.token_ids)) == ('', [(0, 0)], [end])
    assert vlm.read(answer).log_probs.shape == (1,)
    # No token at all can be read as well.
    reading = vlm.read(answer._replace(token_ids=[], spans=[]))
    assert reading.log_probs.shape == (0,)
    assert reading.layers[0].query.size(1) == reading.start

    model, processor = tiny_vlm('llava')
    (token,) = processor.tokenizer.encode('a', add_special_tokens=False)
    steer(model, [token])
    (answer,) = TransformersVLM(model, processor, max_new_tokens=300).answer(make_images()[:1], ['?'], [0])
    assert answer.text == 'a' * 300
    assert answer.spans[299] == (299, 300)


def test_an_answer_ends_at_any_of_its_end_tokens():
    """Those of the checkpoint's generation config count beside the tokenizer's; the end token is kept."""
    model, processor = tiny_vlm('qwen2_vl')
    tokenizer = processor.tokenizer
    word, end = (
        tokenizer.encode('a', add_special_tokens=False)[0],
        tokenizer.convert_tokens_to_ids('<|im_end|>'),
    )
    model.generation_config.eos_token_id = [end]
    own_end = tokenizer.eos_token_id
    steer(model, [word, word, end, word], [own_end, word], [word, word, word, word, end])
    answers = TransformersVLM(model, processor).answer(make_images(), ['?'] * 3, [0] * 3)
    assert [list(a.token_ids) for a in answers] == [[word, word, end], [own_end], [word] * 4 + [end]]
    assert [a.text for a in answers] == ['aa', '', 'aaaa']


def test_an_answer_that_was_cut_says_so():
    """One batch: ended early, ended with the last token there is room for, and cut before its end."""
    model, processor = tiny_vlm('llava')
    word, end = processor.tokenizer.encode('a', add_special_tokens=False)[0], processor.tokenizer.eos_token_id
    steer(model, [word, end], [word] * 4 + [end], [word] * 5 + [end])
    answers = TransformersVLM(model, processor, max_new_tokens=5).answer(make_images(), ['?'] * 3, [0] * 3)
    assert [a.text for a in answers] == ['a', 'aaaa', 'aaaaa']
    assert [a.finished for a in answers] == [True, True, False]


def test_placeholders_are_never_generated():
    """The likeliest token is the image's: it would be taken for a second image, so another is said."""
    for family in FAMILIES:
        model, processor = tiny_vlm(family)
        steer(model, [model.config.image_token_id])
        vlm = TransformersVLM(model, processor, max_new_tokens=3)
        (answer,) = vlm.answer(make_images()[:1], ['?'], [0])
        assert model.config.image_token_id not in answer.token_ids
        assert len(vlm.read(answer).layers) == 2


def test_prompt_without_chat_template():
    """The family's own form, or the one that is given."""
    model, processor = tiny_vlm('llava')
    assert processor.chat_template
    (chat,) = TransformersVLM(model, processor, max_new_tokens=1).answer(make_images()[:1], ['Who?'], [0])
    assert chat.prompt.text == 'USER: <image>\nWho? ASSISTANT:'
    forms = {
        'llava': 'USER: <image>\nWho {question}? ASSISTANT:',
        'llava_next': 'USER: <image>\nWho {question}? ASSISTANT:',
        'qwen2_5_vl': 'user\n<|vision_start|><|image_pad|><|vision_end|>Who {question}?<|im_end|>\n',
        'internvl': '<|im_start|>user\n<IMG_CONTEXT>\nWho {question}?<|im_end|>\n<|im_start|>assistant\n',
        'smolvlm': '<|im_start|>User:<image>Who {question}?<end_of_utterance>\nAssistant:',
    }
    for family, form in forms.items():
        model, processor = tiny_vlm(family)
        processor.chat_template = None
        vlm = TransformersVLM(model, processor, max_new_tokens=1)
        (answer,) = vlm.answer(make_images()[:1], ['Who {question}?'], [0])
        assert form in answer.prompt.text
        assert vlm.read(answer).grids
    vlm = TransformersVLM(*tiny_vlm('llava'), max_new_tokens=1, prompt_template='Q {question} {image} A:')
    assert vlm.answer(make_images()[:1], ['Who?'], [0])[0].prompt.text == 'Q Who? <image> A:'


def test_the_token_that_begins_a_text_is_not_doubled():
    """A template that writes it, and a tokenizer that adds it: once all the same."""
    from tokenizers.processors import TemplateProcessing

    model, processor = tiny_vlm('llava')
    tokenizer = processor.tokenizer
    tokenizer.bos_token = '<|im_start|>'
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single='<|im_start|> $A', special_tokens=[('<|im_start|>', begin)]
    )
    for template in ('<|im_start|>USER: {image}\n{question}', 'USER: {image}\n{question}'):
        vlm = TransformersVLM(model, processor, max_new_tokens=1, prompt_template=template)
        (answer,) = vlm.answer(make_images()[:1], ['Who?'], [0])
        ids = vlm.prompts.preprocess(answer.prompt).inputs['input_ids'][0].tolist()
        assert ids.count(begin) == 1
        assert ids[0] == begin


def test_tiny_images_are_images(vlm):
    """One pixel, and three rows, which some processors would take for colours: as if each were larger."""
    for shape in ((1, 1), (3, 12), (12, 3)):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        factor = 4 if shape == (1, 1) else 2
        images = [image, image.repeat(factor, 0).repeat(factor, 1)]
        tiny, larger = map(vlm.read, vlm.answer(images, ['What?'] * 2, [0, 0]))
        assert torch.equal(tiny.layers[0].key, larger.layers[0].key)
        assert [grid.box for grid in tiny.grids] == [grid.box for grid in larger.grids]


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (np.zeros((1, 300, 3), np.uint8), '300 x 1 pixels cannot be taken: one side .* 200 times'),
        (np.zeros((0, 5, 3), np.uint8), '5 x 0 pixels cannot be taken'),
        (np.zeros((9, 9), np.uint8), r'is uint8 \[9, 9\]'),
        (np.zeros((9, 9, 4), np.uint8), r'is uint8 \[9, 9, 4\]'),
        (np.zeros((9, 9, 3), np.float32), 'is float32'),
        (Image.new('RGB', (9, 9)), 'is Image'),
        (None, 'is NoneType'),
    ],
)
def test_what_is_no_image_is_refused(image, words):
    with pytest.raises(VlsamError, match=words):
        TransformersVLM(*tiny_vlm('llava')).answer([image], ['?'], [0])


def test_an_image_the_processor_cannot_take_is_named():
    model, processor = tiny_vlm('qwen2_vl')
    processor.image_processor.size = {'shortest_edge': 0, 'longest_edge': 0}
    with pytest.raises(
        VlsamError, match=r'Qwen2-VL processor cannot take an image of 150 x 100 pixels .*longest_edge'
    ):
        TransformersVLM(model, processor).answer(make_images()[:1], ['?'], [0])


def test_a_question_with_the_placeholder_is_refused():
    with pytest.raises(VlsamError, match="holds '<image>', which stands for the image"):
        TransformersVLM(*tiny_vlm('llava')).answer(make_images()[:1], ['What is <image>?'], [0])


def test_a_broken_chat_template_is_named():
    model, processor = tiny_vlm('llava')
    processor.chat_template = '{{ nothing.at.all }}'
    with pytest.raises(
        VlsamError, match=r'chat template of the LLaVA-1.5 processor failed .* prompt_template'
    ):
        TransformersVLM(model, processor).answer(make_images()[:1], ['?'], [0])


def test_foreign_answers_are_refused():
    with pytest.raises(VlsamError, match='prompt of type str; read it with the model that gave it'):
        TransformersVLM(*tiny_vlm('llava')).read(Answer('', [], [], 'mine'))


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'max_new_tokens': 0}, 'max_new_tokens and batch_size'),
        ({'batch_size': 0}, 'max_new_tokens and batch_size'),
        ({'temperature': -1.0}, 'temperature .* -1.0'),
        ({'temperature': float('nan')}, 'temperature .* nan'),
        ({'top_p': 0.0}, 'top_p .* 0.0'),
        ({'top_p': 1.5}, 'top_p .* 1.5'),
        ({'prompt_template': '{image}'}, "must hold {question} once, but is '{image}'"),
        ({'prompt_template': '{image}{image}{question}'}, 'must hold {image} once'),
        (
            {'image_options': {'max_patchs': 2}},
            "holds 'max_patchs', which GotOcr2ImageProcessor does not have",
        ),
        ({'load_options': {'device_map': 'auto'}}, 'no effect on a model that is built'),
        ({'processor': None}, 'needs a processor that is built'),
    ],
    ids=str,
)
def test_arguments_out_of_range(settings, words):
    model, processor = tiny_vlm('internvl')
    with pytest.raises(ValueError, match=words):
        TransformersVLM(model, **{'processor': processor, **settings})


def test_as_many_images_as_questions_as_seeds():
    with pytest.raises(ValueError, match='but are 3, 2 and 1'):
        TransformersVLM(*tiny_vlm('llava')).answer(make_images(), ['?'] * 2, [0])


def test_built_models_are_put_into_evaluation_mode_and_moved():
    model, processor = tiny_vlm('llava')
    model.train()
    vlm = TransformersVLM(model, processor, dtype='bfloat16', max_new_tokens=2)
    assert not model.training
    assert model.dtype == torch.bfloat16
    (answer,) = vlm.answer(make_images()[:1], ['?'], [0])
    reading = vlm.read(answer)
    assert reading.layers[0].query.dtype == torch.bfloat16
    assert reading.log_probs.dtype == torch.float32
    assert vlm.to('cpu') is vlm
    model.hf_device_map = {'': 0}  # spread over devices by accelerate: must stay there
    vlm.to('meta')
    assert model.device.type == 'cpu'


def test_processor_of_another_model_is_refused():
    model, processor = tiny_vlm('llava')
    model.config.image_token_id = 7
    with pytest.raises(VlsamError, match="takes token 7 for the image, but '<image>' is token"):
        TransformersVLM(model, processor)
    with pytest.raises(VlsamError, match='has no image_processor and no tokenizer'):
        TransformersVLM(model, byte_tokenizer())


@pytest.mark.cuda
def test_reading_on_a_gpu_is_that_on_the_cpu(vlm):
    """Everything of a reading lies on the GPU, or on the CPU with offload; the numbers agree."""
    (answer,) = vlm.answer(make_images()[:1], ['What?'], [0])
    expected = vlm.read(answer)
    moved = TransformersVLM(copy.deepcopy(vlm.model), vlm.processor, device='cuda', max_new_tokens=2)
    reading = moved.read(answer)
    tensors = [reading.log_probs, *(grid.positions for grid in reading.grids)]
    tensors += [tensor for layer in reading.layers for tensor in (layer.query, layer.key)]
    assert {tensor.device.type for tensor in tensors} == {'cuda'}
    for layer, other in zip(reading.layers, expected.layers, strict=True):
        torch.testing.assert_close(layer.query.cpu(), other.query, rtol=1e-3, atol=1e-3)
    moved.offload = True
    assert moved.read(answer).layers[1].key.device.type == 'cpu'
