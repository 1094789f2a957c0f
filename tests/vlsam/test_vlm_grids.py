"""Image tokens: each cell of a grid is where the model puts what stands in that part of the image."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlms import FAMILIES, tiny_vlm

from atss_ext.vlsam.protocols import TokenGrid, VlsamError
from atss_ext.vlsam.vlm import TransformersVLM, geometry

# Height and width: landscape, portrait, square, and long ones that take other tiles.
SHAPES = ((300, 480), (480, 270), (360, 360), (200, 600), (640, 210))


@pytest.fixture(scope='module', params=FAMILIES)
def vlm(request) -> TransformersVLM:
    return TransformersVLM(*tiny_vlm(request.param), max_new_tokens=2)


class Embedder:
    """What enters the first layer of the text model, [N, D], by transformers alone."""

    def __init__(self, vlm: TransformersVLM, prompt: str) -> None:
        self.vlm, self.prompt = vlm, prompt
        model = vlm.model.model
        self.layers = (getattr(model, 'language_model', None) or model.text_model).layers

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> torch.Tensor:
        inputs = self.vlm.processor(
            images=[Image.fromarray(image)],
            text=[self.prompt],
            return_tensors='pt',
            **self.vlm.prompts.options,
        )
        caught = []

        def catch(_, args, kwargs):
            caught.append(args[0] if args else kwargs['hidden_states'])

        handle = self.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            self.vlm.model(**inputs)
        finally:
            handle.remove()
        return caught[0][0]


def spots(grid: TokenGrid, shape: tuple[int, int], rng: np.random.Generator, count: int = 8):
    """Cells, corners first, each with a spot in one of its quarters: (row, column, y, x, height, width)."""
    rows, columns = grid.positions.shape
    x1, y1, x2, y2 = grid.box
    height, width = (y2 - y1) * shape[0] / rows, (x2 - x1) * shape[1] / columns
    corners = [(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)]
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    for row, column in corners + [cells[i] for i in rng.permutation(len(cells))]:
        down, right = rng.choice([0.1, 0.5], 2)
        y, x = y1 * shape[0] + (row + down) * height, x1 * shape[1] + (column + right) * width
        inside = y >= 0 and x >= 0 and y + 0.4 * height <= shape[0] and x + 0.4 * width <= shape[1]
        if inside and count:
            yield row, column, y, x, 0.4 * height, 0.4 * width
            count -= 1


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_a_spot_changes_the_token_at_its_place(vlm, shape):
    """A spot in a quarter of a cell changes that cell's token more than any other of its grid."""
    rng = np.random.default_rng(sum(shape))
    image = rng.integers(118, 138, (*shape, 3), dtype=np.uint8)
    (answer,) = vlm.answer([image], ['What is there?'], [0])
    reading = vlm.read(answer)
    embed = Embedder(vlm, answer.prompt.text)
    before = embed(image)
    cells = torch.cat([grid.positions.flatten() for grid in reading.grids])
    assert len(cells.unique()) == len(cells)
    found = 0
    for grid in reading.grids:
        for row, column, y, x, height, width in spots(grid, shape, rng):
            changed = image.copy()
            changed[round(y) : round(y + height), round(x) : round(x + width)] = (255, 0, 255)
            change = (embed(changed) - before).norm(dim=1)
            strongest = grid.positions.flatten()[change[grid.positions].argmax()]
            assert strongest == grid.positions[row, column]
            assert change.argmax() in cells
            found += 1
    assert found == 8 * len(reading.grids)


def test_every_image_token_has_its_cell(vlm):
    """Grids hold all placeholders; LLaVA-Next's newlines, one after each row of tiles, are in none."""
    image = np.zeros((300, 480, 3), np.uint8)
    (answer,) = vlm.answer([image], ['What?'], [0])
    grids = vlm.read(answer).grids
    ids = vlm.processor(images=[Image.fromarray(image)], text=[answer.prompt.text])['input_ids'][0]
    expected = {place for place, token in enumerate(ids) if token == vlm.model.config.image_token_id}
    found = {int(place) for grid in grids for place in grid.positions.flatten()}
    if vlm.model.config.model_type == 'llava_next':
        newlines = grids[1].positions[:, -1] + 1
        assert expected - found == set(newlines.tolist())
    else:
        assert found == expected
    assert grids[0].positions.dtype == torch.int64


@pytest.mark.parametrize(
    ('family', 'shape', 'sizes'),
    [
        ('llava', (300, 480), [(5, 5)]),
        ('llava_next', (300, 480), [(4, 4), (6, 8)]),
        ('llava_next', (640, 210), [(4, 4), (12, 4)]),
        ('qwen2_vl', (112, 196), [(4, 7)]),
        ('qwen2_5_vl', (112, 196), [(4, 7)]),
        ('qwen3_vl', (128, 192), [(4, 6)]),
        ('internvl', (300, 480), [(6, 9), (3, 3)]),
        ('internvl', (600, 200), [(9, 3), (3, 3)]),
        ('smolvlm', (300, 480), [(6, 9), (3, 3)]),
        ('idefics3', (480, 120), [(9, 3), (3, 3)]),
    ],
)
def test_literal_grid_sizes(family, shape, sizes):
    vlm = TransformersVLM(*tiny_vlm(family), max_new_tokens=1)
    (answer,) = vlm.answer([np.zeros((*shape, 3), np.uint8)], ['?'], [0])
    assert [tuple(grid.positions.shape) for grid in vlm.read(answer).grids] == sizes


def grids_of(vlm: TransformersVLM, height: int, width: int) -> list[TokenGrid]:
    (answer,) = vlm.answer([np.zeros((height, width, 3), np.uint8)], ['?'], [0])
    return vlm.read(answer).grids


def test_one_tile_is_the_whole_image():
    """Splitting off by an option, or an image that needs none: one grid, of everything."""
    for family, options in (
        ('internvl', {'crop_to_patches': False}),
        ('smolvlm', {'do_image_splitting': False}),
        ('idefics3', {'do_image_splitting': False}),
    ):
        vlm = TransformersVLM(*tiny_vlm(family), max_new_tokens=1, image_options=options)
        (grid,) = grids_of(vlm, 300, 480)
        assert tuple(grid.positions.shape) == (3, 3)
        assert grid.box == (0, 0, 1, 1)
    vlm = TransformersVLM(*tiny_vlm('internvl'), max_new_tokens=1, image_options={'max_patches': 2})
    assert [tuple(grid.positions.shape) for grid in grids_of(vlm, 300, 480)] == [(3, 6), (3, 3)]


def test_llava_sees_the_whole_image_a_centre_crop_or_a_padded_square():
    """CLIP's processor cuts the ends off (here 90 of 480 pixels each), LLaVA's own can pad, ours squeezes."""
    import transformers

    model, processor = tiny_vlm('llava')
    vlm = TransformersVLM(model, processor, max_new_tokens=1)
    (grid,) = grids_of(vlm, 300, 480)
    assert grid.box == (0, 0, 1, 1)
    test_a_spot_changes_the_token_at_its_place(vlm, (300, 480))
    cropping = {'do_center_crop': True}
    vlm = TransformersVLM(model, processor, max_new_tokens=1, image_options=cropping)
    (grid,) = grids_of(vlm, 300, 480)
    test_a_spot_changes_the_token_at_its_place(vlm, (300, 480))
    # 480 pixels are resized to 112, of which those from 21 to 91 remain.
    assert grid.box == pytest.approx((21 / 112, 0, 91 / 112, 1))

    side = {'height': 70, 'width': 70}
    processor.image_processor = transformers.LlavaImageProcessor(
        do_pad=True, size={'shortest_edge': 70}, crop_size=side
    )
    vlm = TransformersVLM(model, processor, max_new_tokens=1)
    (grid,) = grids_of(vlm, 300, 480)
    assert grid.box == pytest.approx((0, -90 / 300, 1, 390 / 300))
    test_a_spot_changes_the_token_at_its_place(vlm, (300, 480))

    processor.image_processor = transformers.SiglipImageProcessor(size=side)
    vlm = TransformersVLM(model, processor, max_new_tokens=1)
    assert grids_of(vlm, 300, 480)[0].box == (0, 0, 1, 1)


def test_llava_with_a_tower_whose_patches_do_not_fill_the_crop():
    """384 pixels hold 27 patches of 14 and 6 pixels that no patch sees: like 75 = 5 * 14 + 5 here."""
    import transformers

    model, processor = tiny_vlm('llava')
    vision = {**model.config.vision_config.to_dict(), 'image_size': 75}
    model, processor = tiny_vlm('llava', vision_config=vision)
    processor.image_processor = transformers.SiglipImageProcessor(size={'height': 75, 'width': 75})
    (grid,) = grids_of(TransformersVLM(model, processor, max_new_tokens=1), 300, 480)
    assert grid.box == pytest.approx((0, 0, 70 / 75, 70 / 75))


def test_llava_with_its_class_token_kept():
    """With the strategy 'full' the first image token is CLS, which belongs to no cell."""
    vlm = TransformersVLM(*tiny_vlm('llava', vision_feature_select_strategy='full'), max_new_tokens=1)
    (answer,) = vlm.answer([np.zeros((90, 90, 3), np.uint8)], ['?'], [0])
    ids = vlm.prompts.preprocess(answer.prompt).inputs['input_ids'][0]
    first = int((ids == vlm.model.config.image_token_id).nonzero()[0])
    assert vlm.read(answer).grids[0].positions[0, 0] == first + 1
    test_a_spot_changes_the_token_at_its_place(vlm, (360, 360))


def test_llava_next_keeps_no_row_of_a_thin_strip():
    """Padding swallows an image 150 times as wide as high; the grid of the whole image is left."""
    vlm = TransformersVLM(*tiny_vlm('llava_next'), max_new_tokens=1)
    assert [tuple(grid.positions.shape) for grid in grids_of(vlm, 4, 600)] == [(4, 4)]


def test_sequence_with_one_placeholder_too_many_is_refused(vlm):
    (answer,) = vlm.answer([np.zeros((300, 480, 3), np.uint8)], ['What?'], [0])
    placeholder = vlm.model.config.image_token_id
    count = sum(grid.positions.numel() for grid in vlm.read(answer).grids)
    if vlm.model.config.model_type == 'llava_next':
        count += 6  # newlines
    expected = f'the prompt holds {count + 1} image tokens, but an image of 480 x 300 pixels has {count}'
    with pytest.raises(VlsamError, match=f'{vlm.prompts.family.name}: {expected}'):
        vlm.read(answer._replace(token_ids=[*answer.token_ids, placeholder]))


def test_processor_of_another_setting_is_refused():
    """A count that does not match is said before the model sees it, with both numbers."""

    def llava(model, processor):
        processor.patch_size = 7

    def llava_next(model, processor):
        model.config.image_grid_pinpoints = [[56, 56]]

    def qwen2_vl(model, processor):
        model.config.vision_config.spatial_merge_size = 4

    def internvl(model, processor):
        processor.image_seq_length = 16

    def smolvlm(model, processor):
        processor.image_seq_len = 16

    numbers = {
        llava: (100, 25),
        llava_next: (70, 26),
        qwen2_vl: (40, 8),
        internvl: (112, 63),
        smolvlm: (112, 63),
    }
    for change, (found, wanted) in numbers.items():
        model, processor = tiny_vlm(change.__name__)
        change(model, processor)
        vlm = TransformersVLM(model, processor)
        with pytest.raises(VlsamError, match=f'holds {found} image tokens, but .* has {wanted} in the grids'):
            vlm.answer([np.zeros((300, 480, 3), np.uint8)], ['?'], [0])


def test_leading_token_that_is_not_there_is_refused():
    model, processor = tiny_vlm('llava')
    processor.num_additional_image_tokens = 0
    with pytest.raises(VlsamError, match=r"strategy='default' drops the first token .* is 0; set it to 1"):
        TransformersVLM(model, processor).answer([np.zeros((90, 90, 3), np.uint8)], ['?'], [0])


def test_llava_next_with_its_class_token_kept_is_refused():
    model, processor = tiny_vlm('llava_next', vision_feature_select_strategy='full')
    with pytest.raises(VlsamError, match="strategy='full' would leave the CLS token among the patches"):
        TransformersVLM(model, processor).answer([np.zeros((90, 90, 3), np.uint8)], ['?'], [0])


def random_sizes(count: int, low: int, high: int) -> list[tuple[int, int]]:
    draws = np.exp(np.random.default_rng(5).uniform(math.log(low), math.log(high), (count, 2)))
    return [(int(height), int(width)) for height, width in draws] + [
        (50, 100),
        (100, 400),
        (400, 100),
        (64, 64),
        (1, 1),
    ]


@pytest.mark.parametrize(('longest_edge', 'tile'), [(80, 20), (84, 21), (300, 100)])
def test_split_tiles_equals_transformers(longest_edge, tile):
    from transformers import SmolVLMImageProcessor

    processor = SmolVLMImageProcessor(
        size={'longest_edge': longest_edge}, max_image_size={'longest_edge': tile}, return_row_col_info=True
    )
    for size in random_sizes(60, 20, 400):
        made = processor([Image.new('RGB', size[::-1])], return_tensors='pt')
        expected = made['rows'][0][0], made['cols'][0][0]
        found = geometry.split_tiles(size, longest_edge, tile)
        assert (found if found != (1, 1) else (0, 0)) == expected, size


def test_split_tiles_stays_below_the_limit_of_transformers():
    """4,096 pixels, whatever the options say; computed by hand: 5000 x 2500 -> 4096 x 2048 -> 9 x 5 tiles."""
    assert geometry.split_tiles((2500, 5000), 6000, 480) == (5, 9)


def test_closest_canvas_equals_transformers():
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    for size in random_sizes(300, 10, 3000):
        for low, high in ((1, 12), (1, 6), (4, 6), (6, 6)):
            columns, rows = get_optimal_tiled_canvas(size, (84, 84), low, high)
            assert geometry.closest_canvas(size, (84, 84), low, high) == (rows, columns), size


def test_unpadding_equals_transformers():
    """The rows and columns that remain are those transformers cuts out of a numbered grid."""
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next.modeling_llava_next import unpad_image

    pinpoints = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    for size in random_sizes(200, 30, 3000):
        canvas = select_best_resolution(size, pinpoints)
        tokens = canvas[0] // 14, canvas[1] // 14
        numbered = torch.arange(tokens[0] * tokens[1]).view(1, *tokens)
        rows, columns, box = geometry.anyres_window(size, canvas, tokens)
        assert torch.equal(numbered[:, rows, columns], unpad_image(numbered, size)), size
        # What remains is the image, to a token's width at each end.
        sides = np.array([columns.stop - columns.start, rows.stop - rows.start] * 2)
        assert (np.abs(np.array(box) - (0, 0, 1, 1)) * sides <= 1.01).all(), size
