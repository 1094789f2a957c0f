"""How many tokens an image of Qwen-VL takes where nobody said: what checkpoints allow is too much."""

import numpy as np
import pytest
from tiny_vlms import tiny_vlm

from atss_ext.vlsam.vlm import TransformersVLM

# As published with the checkpoints (min_pixels and max_pixels, or size, of preprocessor_config.json).
PUBLISHED = {
    'qwen2_vl': {'shortest_edge': 3136, 'longest_edge': 12845056},
    'qwen2_5_vl': {'shortest_edge': 3136, 'longest_edge': 12845056},
    'qwen3_vl': {'shortest_edge': 65536, 'longest_edge': 16777216},
}


def published(family: str, **options) -> TransformersVLM:
    model, processor = tiny_vlm(family)
    processor.image_processor.size = PUBLISHED[family]
    return TransformersVLM(model, processor, **options)


def tokens(vlm: TransformersVLM, height: int, width: int) -> int:
    prompt = vlm.prompts.prompt(np.zeros((height, width, 3), np.uint8), 'What?')
    ids = vlm.prompts.preprocess(prompt).inputs['input_ids'][0]
    return int((ids == vlm.model.config.image_token_id).sum())


@pytest.mark.parametrize(('family', 'side'), [('qwen2_vl', 28), ('qwen2_5_vl', 28), ('qwen3_vl', 32)])
def test_large_images_take_1280_tokens_at_most(family, side):
    vlm = published(family)
    assert vlm.prompts.options['size']['longest_edge'] == 1280 * side**2
    assert tokens(vlm, 4096, 4096) == 35 * 35
    assert tokens(vlm, 20 * side, 30 * side) == 600  # what fits stays as it is
    assert vlm.processor.image_processor.size['longest_edge'] == PUBLISHED[family]['longest_edge']


def test_the_users_size_wins():
    size = {'shortest_edge': 3136, 'longest_edge': 2000 * 28**2}
    assert tokens(published('qwen2_5_vl', image_options={'size': size}), 4096, 4096) == 44 * 44
    for name in ('min_pixels', 'max_pixels'):
        vlm = published('qwen2_5_vl', image_options={name: 2000 * 28**2})
        assert vlm.prompts.options == {name: 2000 * 28**2}


def test_a_smaller_limit_of_the_checkpoint_stays():
    model, processor = tiny_vlm('qwen2_vl')
    vlm = TransformersVLM(model, processor, image_options={'do_normalize': False})
    assert vlm.prompts.options == {'do_normalize': False}
    assert tokens(vlm, 500, 500) == 36  # 40 at most
    # Neither is a limit put below what the checkpoint takes at least.
    processor.image_processor.size = {'shortest_edge': 2000 * 28**2, 'longest_edge': 3000 * 28**2}
    assert TransformersVLM(model, processor).prompts.options == {}
