"""The image processor's work on the last image is done once, and changes nothing."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlms import FAMILIES, tiny_vlm

from atss_ext.vlsam.vlm import TransformersVLM


def make_image(seed: int, shape: tuple[int, int] = (120, 170)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def count_calls(processor) -> list[int]:
    """Count the images that a processor of images goes through, from now on."""
    calls: list[int] = []
    kind = type(processor.image_processor)

    class Counting(kind):
        def __call__(self, images, *args, **kwargs):
            calls.append(1)
            return super().__call__(images, *args, **kwargs)

    processor.image_processor.__class__ = Counting
    return calls


def direct(vlm: TransformersVLM, image: np.ndarray, text: str) -> dict[str, torch.Tensor]:
    """What transformers' own processor gives, without a cache."""
    images = [Image.fromarray(image)]
    return dict(vlm.processor(images=images, text=[text], return_tensors='pt', **vlm.prompts.options))


def assert_equal(inputs, expected) -> None:
    assert set(inputs) == set(expected)
    for name, value in expected.items():
        assert inputs[name].dtype == value.dtype
        assert torch.equal(inputs[name], value)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_hit_is_bit_equal_and_the_image_is_processed_once(family):
    model, processor = tiny_vlm(family)
    vlm = TransformersVLM(model, processor, max_new_tokens=2)
    prompts = [vlm.prompts.prompt(make_image(0), question) for question in ('What?', 'List all objects.')]
    expected = [direct(vlm, prompt.image, prompt.text) for prompt in prompts]
    calls = count_calls(processor)
    for _ in range(2):
        for prompt, inputs in zip(prompts, expected, strict=True):
            assert_equal(vlm.prompts.preprocess(prompt).inputs, inputs)
    assert len(calls) == 1
    # Ten questions and the readings of their answers.
    image = make_image(1)
    for answer in vlm.answer([image] * 10, [f'Question {i}?' for i in range(10)], range(10)):
        vlm.read(answer)
    assert len(calls) == 2
    assert vlm.processor is processor
    assert type(processor.image_processor).__name__ == 'Counting'  # no cache was left in the user's processor


def test_another_image_and_one_that_was_changed_in_place_are_processed_anew():
    model, processor = tiny_vlm('qwen2_5_vl')
    vlm = TransformersVLM(model, processor)
    calls = count_calls(processor)
    image = make_image(0)
    turned = np.ascontiguousarray(image.reshape(170, 120, 3))  # the same bytes in another shape
    for count, picture in enumerate((image, turned, image, image[::-1]), 1):
        prompt = vlm.prompts.prompt(picture, 'What?')
        seen = vlm.prompts.preprocess(prompt)
        assert len(calls) == count  # one image is kept, the last
        assert_equal(seen.inputs, direct(vlm, picture, prompt.text))
        calls.pop()
    prompt = vlm.prompts.prompt(image, 'What?')
    before = vlm.prompts.preprocess(prompt).inputs['pixel_values']
    image[40:80] = 0
    after = vlm.prompts.preprocess(prompt).inputs
    assert not torch.equal(before, after['pixel_values'])
    assert_equal(after, direct(vlm, image, prompt.text))


def test_changed_settings_are_heeded():
    model, processor = tiny_vlm('qwen2_5_vl')
    vlm = TransformersVLM(model, processor)
    prompt = vlm.prompts.prompt(make_image(0), 'What?')
    before = vlm.prompts.preprocess(prompt).inputs
    processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    after = vlm.prompts.preprocess(prompt).inputs
    assert not torch.equal(before['pixel_values'], after['pixel_values'])
    assert_equal(after, direct(vlm, prompt.image, prompt.text))
    vlm.prompts.options['do_normalize'] = False
    assert_equal(vlm.prompts.preprocess(prompt).inputs, direct(vlm, prompt.image, prompt.text))


def test_what_a_caller_does_to_its_inputs_reaches_no_other():
    vlm = TransformersVLM(*tiny_vlm('internvl'))
    prompt = vlm.prompts.prompt(make_image(0), 'What?')
    expected = direct(vlm, prompt.image, prompt.text)
    for _ in range(3):
        inputs = vlm.prompts.preprocess(prompt).inputs
        assert_equal(inputs, expected)
        inputs['pixel_values'].zero_()


def test_threads_with_other_images_get_their_own():
    vlm = TransformersVLM(*tiny_vlm('llava'))
    prompts = [vlm.prompts.prompt(make_image(seed), f'Number {seed}?') for seed in range(3)]
    expected = [direct(vlm, prompt.image, prompt.text) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(vlm.prompts.preprocess, prompts * 20))
    for index, preprocessed in enumerate(seen):
        assert_equal(preprocessed.inputs, expected[index % 3])
