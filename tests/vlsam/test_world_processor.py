"""The small model's processor: text to tokens and back, prompts, pixels."""

import numpy as np
import pytest
import torch

from atss_ext.vlsam.world.processor import build_processor, build_tokenizer, conversation, vocabulary
from atss_ext.vlsam.world.scenes import QUESTIONS, names_in_order, scene_of, sentence


@pytest.fixture(scope='module')
def processor():
    return build_processor(64, 8)


def test_ids_of_special_tokens_are_those_of_the_model_config(processor):
    tokenizer = processor.tokenizer
    assert vocabulary()[:5] == ('<pad>', '<s>', '</s>', '<unk>', '<image>')
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert (*ids, processor.image_token_id) == (0, 1, 2, 3, 4)


def test_every_prefix_of_an_answer_decodes_to_the_beginning_of_its_text():
    tokenizer = build_tokenizer()
    text = 'a red circle, a blue square'
    ids = tokenizer(text, add_special_tokens=False)['input_ids']
    decoded = [tokenizer.decode(ids[:count]) for count in range(1, len(ids) + 1)]
    assert decoded == [
        'a',
        'a red',
        'a red circle',
        'a red circle,',
        'a red circle, a',
        'a red circle, a blue',
        'a red circle, a blue square',
    ]


def test_every_sentence_and_question_is_in_the_vocabulary():
    tokenizer = build_tokenizer()
    texts = [*QUESTIONS, *(sentence(names_in_order(scene_of('train', i))) for i in range(50)), 'nothing']
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)['input_ids']
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text.lower()


def test_unknown_words_are_unknown_and_case_does_not_matter():
    tokenizer = build_tokenizer()
    ids = tokenizer('A Red zebra,\n circle', add_special_tokens=False)['input_ids']
    assert tokenizer.convert_ids_to_tokens(ids) == ['▁a', '▁red', '<unk>', ',', '▁circle']


def test_a_conversation_becomes_the_prompt_with_one_token_a_patch(processor):
    image = scene_of('train', 0).image
    messages = conversation('List all objects in the image.')
    messages[0]['content'][0]['image'] = image
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors='pt'
    )
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs['input_ids'][0].tolist())
    words = ['▁list', '▁all', '▁objects', '▁in', '▁the', '▁image', '.', '▁assistant', ':']
    assert tokens == ['<s>', '▁user', ':', *['<image>'] * 64, *words]
    expected = torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1
    torch.testing.assert_close(inputs['pixel_values'][0], expected)


def test_other_image_sizes_are_squeezed_to_the_square(processor):
    pixels = processor.image_processor(np.full((30, 90, 3), 255, np.uint8), return_tensors='pt')[
        'pixel_values'
    ]
    torch.testing.assert_close(pixels, torch.ones(1, 3, 64, 64))


def test_saved_and_loaded_it_makes_the_same_of_a_text(processor, tmp_path):
    from transformers import AutoProcessor

    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    image = scene_of('train', 0).image
    for question in QUESTIONS:
        text = processor.apply_chat_template(conversation(question), add_generation_prompt=True)
        assert loaded.apply_chat_template(conversation(question), add_generation_prompt=True) == text
        ours, theirs = processor(images=image, text=text), loaded(images=image, text=text)
        assert ours['input_ids'] == theirs['input_ids']


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='multiple of patch_size, but 64 is none of 7'):
        build_processor(64, 7)
