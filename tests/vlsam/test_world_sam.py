"""The small SAM's training: its batches, that it learns and goes on, what it leaves behind and its scores."""

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_ext.datasets.shapes import Scene
from atss_ext.errors import UserError
from atss_ext.vlsam.segmenter import TransformersSegmenter
from atss_ext.vlsam.world.scenes import scene_of

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'vlsam_world'))

import sam_batches
import sam_losses
import sam_model
import sam_scoring
import scene_cache
import train_sam
from training import run


@pytest.fixture(scope='module', autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def scenes():
    return scene_cache.draw_scenes(48)


def test_targets_are_the_objects_of_the_pictures(scenes):
    batch = sam_batches.SamBatches(scenes, seed=1, size=12, parts=0.0)(step=0)
    known = {}
    for image, owners in zip(scenes.images, scenes.owners, strict=True):
        for step in (1, -1):
            pixels = sam_batches.to_pixels(np.ascontiguousarray(image[None, :, ::step]))[0]
            known[pixels.numpy().tobytes()] = owners[:, ::step]
    counts = batch.pictures.bincount().tolist()
    assert len(counts) == 12
    for picture, pixels in enumerate(batch.pixels):
        owners = known[pixels.numpy().tobytes()]
        expected = [torch.from_numpy(owners == number) for number in range(1, owners.max() + 1)]
        assert torch.equal(batch.targets[batch.pictures == picture], torch.stack(expected))


def test_most_pictures_show_several_objects_even_of_parts(scenes):
    batches = sam_batches.SamBatches(scenes, seed=0, size=12, parts=1.0)
    counts = torch.cat([batches(step).pictures.bincount(minlength=12) for step in range(10)])
    # Of parts drawn blindly it is about one in six.
    assert (counts > 1).float().mean() > 0.4
    assert (counts == 1).any()
    assert counts.min() == 1


def test_parts_are_enlarged_as_the_processor_does_it():
    scene = scene_of('check', 3)
    (whole,) = sam_scoring.views_of(scene, corners=False)
    part = sam_batches.smooth_part(whole, 32, 0)
    processor = sam_model.build_sam_processor()
    expected = processor.image_processor(
        scene.image[:32, 32:], return_tensors='pt', input_data_format='channels_last'
    )['pixel_values']
    # Pillow rounds to whole grey levels, one of which is 1 / 58 here at most.
    difference = (sam_batches.to_pixels(part.image[None]) - expected).abs()
    assert difference.max() < 1.01 / (255 * 0.224)
    same = processor.image_processor(scene.image, return_tensors='pt')['pixel_values']
    torch.testing.assert_close(sam_batches.to_pixels(scene.image[None]), same)


def test_a_batch_depends_on_seed_and_step_alone(scenes):
    first, second = (sam_batches.SamBatches(scenes, seed=3, size=4) for _ in range(2))
    first(0)
    ours, theirs = first(7), second(7)
    assert torch.equal(ours.pixels, theirs.pixels)
    assert torch.equal(ours.targets, theirs.targets)
    assert torch.equal(ours.prompts['pair'].points, theirs.prompts['pair'].points)
    assert torch.equal(ours.prompts['box'].boxes, theirs.prompts['box'].boxes)
    assert (ours.multimask, ours.again) == (theirs.multimask, theirs.again)
    assert not torch.equal(first(7).pixels, first(8).pixels)


def test_scenes_without_objects_are_refused(scenes):
    empty = scenes._replace(categories=np.zeros_like(scenes.categories))
    with pytest.raises(ValueError, match='none of the 48 scenes has an object to segment'):
        sam_batches.SamBatches(empty, seed=0, size=2)


def test_a_decoder_call_is_the_models_own_for_each_object(scenes):
    torch.manual_seed(0)
    model = sam_model.build_sam().eval()
    batch = sam_batches.SamBatches(scenes, seed=0, size=3)(0)
    with torch.no_grad():
        features = model.vision_encoder(batch.pixels).last_hidden_state
        logits, ious = sam_model.decode(model, features[batch.pictures], batch.prompts['pair'], True)
        picture = int(batch.pictures[-1])
        own = batch.pictures == picture
        output = model(
            pixel_values=batch.pixels[picture : picture + 1],
            input_points=batch.prompts['pair'].points[own][None],
            input_labels=batch.prompts['pair'].labels[own][None],
        )
    torch.testing.assert_close(logits[own], output.pred_masks[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ious[own], output.iou_scores[0], rtol=1e-4, atol=1e-4)


def test_prompts_and_pictures_share_positions_that_are_not_learned():
    model = sam_model.build_sam()
    pictures = model.shared_image_embedding.positional_embedding
    prompts = model.prompt_encoder.shared_embedding.positional_embedding
    assert torch.equal(pictures, prompts)
    assert pictures.std() < 1  # waves a few times as long as a patch; transformers' own would be 48
    assert not pictures.requires_grad
    assert not prompts.requires_grad
    assert sum(weight.numel() for weight in model.parameters()) <= 575_000
    vision = sum(weight.numel() for weight in model.vision_encoder.parameters())
    assert vision > 400_000


def test_images_that_are_no_whole_number_of_windows_are_refused():
    with pytest.raises(ValueError, match='must be a multiple of 8 patches of 4 pixels, but is 48'):
        sam_model.build_sam(48)


def test_twenty_steps_lower_the_losses(scenes):
    # Three proposals always: the loss of one alone is another.
    training = train_sam.SamTraining(train_sam.Recipe(steps=40, batch=2, multimask=1.0, scenes=48), scenes)
    losses = [training.advance() for _ in range(20)]
    for way in ('point', 'pair', 'box', 'again'):
        first, last = (sum(found[way] for found in part) for part in (losses[:3], losses[-3:]))
        assert last < 0.8 * first


def test_masks_are_handed_back_with_the_same_points(scenes, monkeypatch):
    training = train_sam.SamTraining(train_sam.Recipe(steps=1, batch=2, scenes=48), scenes)
    batch = training.batches(0)._replace(again='pair')
    calls = []

    def noting(model, rows, prompts, multimask, mask_logits=None):
        found = sam_model.decode(model, rows, prompts, multimask, mask_logits)
        calls.append((prompts, multimask, mask_logits, *found))
        return found

    monkeypatch.setattr(train_sam, 'decode', noting)
    losses = training.losses(batch)
    assert set(losses) == {'point', 'pair', 'again', 'box', 'iou'}
    assert [call[2] is not None for call in calls] == [False, False, True, False]
    first, again = calls[1], calls[2]
    assert again[0] is first[0] is batch.prompts['pair']
    assert again[1] == first[1] == batch.multimask['pair']
    for handed, logits, ious in zip(again[2], first[3], first[4], strict=True):
        assert torch.equal(handed, logits[ious.argmax()])
    assert not again[2].requires_grad
    assert first[3].requires_grad
    wanted = [sam_losses.sam_losses(call[3], call[4], batch.targets, 5.0, 0.0).iou for call in calls]
    assert losses['iou'].item() == pytest.approx(sum(wanted).item())


def test_an_interrupted_run_ends_with_the_same_weights(scenes, tmp_path):
    recipe = train_sam.Recipe(steps=4, batch=1, scenes=48)
    whole = train_sam.SamTraining(recipe, scenes)
    run(whole, tmp_path / 'whole', quiet=True)

    broken = train_sam.SamTraining(recipe, scenes)
    advance = broken.advance

    def killed_on_the_way():
        if broken.step == 3:
            raise KeyboardInterrupt
        return advance()

    broken.advance = killed_on_the_way
    with pytest.raises(KeyboardInterrupt):
        run(broken, tmp_path / 'broken', every=2, quiet=True)
    again = train_sam.SamTraining(recipe, scenes)
    assert again.resume(tmp_path / 'broken')
    assert again.step == 2
    run(again, tmp_path / 'broken', quiet=True)
    for ours, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not train_sam.SamTraining(recipe, scenes).resume(tmp_path / 'nowhere')


def test_another_recipe_does_not_go_on(scenes, tmp_path):
    run(train_sam.SamTraining(train_sam.Recipe(steps=1, batch=1), scenes), tmp_path, quiet=True)
    other = train_sam.SamTraining(train_sam.Recipe(steps=1, batch=1, rate=1e-3), scenes)
    with pytest.raises(UserError, match=r'was trained with rate = 0\.002, not 0\.001: give the same'):
        other.resume(tmp_path)


def test_the_folder_is_a_segmenter_that_gives_the_models_masks(scenes, tmp_path):
    training = train_sam.SamTraining(train_sam.Recipe(steps=2, batch=2), scenes)
    run(training, tmp_path, quiet=True)
    weights = tmp_path / 'model.safetensors'
    assert stat.S_IMODE(weights.stat().st_mode) == 0o644
    assert weights.stat().st_size < 2_300_000
    segmenter = TransformersSegmenter(tmp_path, local_files_only=True)
    scene = scene_of('check', 1)
    (view,) = sam_scoring.views_of(scene, corners=False)
    prompts = sam_batches.draw_prompts(view, np.random.default_rng(0))['pair']
    embedding = segmenter.embed(scene.image)
    found = segmenter.segment(embedding, prompts.points, prompts.labels)
    again = segmenter.segment(embedding, prompts.points, prompts.labels, mask_logits=found.mask_logits)
    model = training.model.eval()
    with torch.no_grad():
        features = model.vision_encoder(sam_batches.to_pixels(scene.image[None])).last_hidden_state
        rows = features.expand(len(view.categories), -1, -1, -1)
        logits, ious = sam_model.decode(model, rows, prompts, True)
        chosen = sam_scoring.choose(logits, ious)
        more = sam_model.decode(model, rows, prompts, True, chosen)[0]
    # Hardly trained, its logits lie close to zero, so that the comparison has to be closer yet.
    assert chosen.std() > 5e-4
    torch.testing.assert_close(found.mask_logits, chosen, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.masks, found.mask_logits > 0)
    torch.testing.assert_close(found.ious, ious.amax(dim=1).clamp(0, 1), rtol=1e-4, atol=1e-6)
    # Ranks after feedback may be close: its logits are those of a proposal.
    nearest = (more - again.mask_logits[:, None]).abs().amax(dim=(2, 3)).amin(dim=1)
    assert nearest.max() < 1e-5


class KnowingModel:
    """Answers with the scene's own masks: the object whole, without its right half, and nothing."""

    def __init__(self, masks, believed):
        self.masks, self.believed = torch.from_numpy(masks), torch.tensor(believed)
        self.asked = []

    def eval(self):
        return self

    def vision_encoder(self, pixels):
        return type('Output', (), {'last_hidden_state': torch.zeros(1, 1, 16, 16)})

    def __call__(self, image_embeddings, multimask_output, **prompts):
        assert multimask_output
        self.asked.append(prompts)
        whole, half = self.masks.clone(), self.masks.clone()
        half[:, :, 16:] = False
        logits = torch.stack([whole, half, torch.zeros_like(whole)], dim=1).float()[:, None] * 2 - 1
        ious = self.believed.expand(len(whole), 1, 3)
        return type('Output', (), {'pred_masks': logits, 'iou_scores': ious})


@pytest.mark.parametrize(
    ('believed', 'expected'),
    [
        ([0.9, 0.5, 0.1], (1, 1, 1, 1, 1, 1)),
        # Half the square: an IoU of 0.5 reaches one of ten thresholds.
        ([0.5, 0.9, 0.1], (0.5, 0.5, 0.1, 0.1, 0, 1)),
        ([0.1, 0.5, 0.9], (0, 0, 0, 0, 0, 1)),
    ],
)
def test_scores_by_hand(believed, expected):
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 8:24, 8:24] = True
    scene = Scene(
        image=np.zeros((64, 64, 3), np.uint8),
        boxes=np.array([[8, 8, 24, 24]], np.float32),
        masks=masks,
        category_ids=np.ones(1, np.int64),
        names=('red square',),
        visible=np.ones(1, np.float32),
    )
    model = KnowingModel(masks, believed)
    scores = sam_scoring.score_segmentation(model, [scene])
    box, central, point, pair, again = model.asked
    assert box['input_boxes'].tolist() == [[[8, 8, 24, 24]]]
    assert central['input_points'].tolist() == [[[[12, 12]]]]  # four cells are as near: the first
    assert (point['input_labels'].tolist(), pair['input_labels'].tolist()) == ([[[1]]], [[[1, 0]]])
    assert torch.equal(again['input_points'], pair['input_points'])
    assert (again['input_masks'] > 0).sum() == round(256 * expected[0])  # the proposal believed in
    assert set(scores) == set(sam_scoring.WAYS)
    for score in scores.values():
        assert tuple(score) == pytest.approx(expected)


def test_nothing_to_score_is_refused(scenes):
    model = sam_model.build_sam()
    with pytest.raises(ValueError, match='none of 0 scenes has an object'):
        sam_scoring.score_segmentation(model, [])


def test_the_command_trains_and_says_how_well_it_segments(tmp_path, capsys):
    arguments = ['--steps', '20', '--batch', '2', '--scenes', '8', '--check-scenes', '2']
    places = ['--out', str(tmp_path / 'sam'), '--cache', str(tmp_path / 'scenes')]
    train_sam.main([*arguments, *places])
    printed = capsys.readouterr().out
    assert 'step 20/20: loss of again' in printed
    assert 'whole, 2 scenes, gt box: mask_iou' in printed
    written = json.loads((tmp_path / 'sam' / 'training.json').read_text(encoding='utf-8'))
    assert written['recipe']['batch'] == 2
    assert written['minutes'] > 0
    scores = written['segmentation']
    assert list(scores) == ['whole', 'corners']
    assert set(scores['whole']) == set(sam_scoring.WAYS)
    model = TransformersSegmenter(tmp_path / 'sam', local_files_only=True).model
    again = sam_scoring.score_segmentation(model, [scene_of('check', i) for i in range(2)])
    assert again['pair'].mask_iou == pytest.approx(scores['whole']['pair']['mask_iou'], abs=1e-4)
    train_sam.main([*arguments, *places, '--check-scenes', '0'])
    assert 'going on from step 2' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--steps', '0'], 'steps must be at least 1, but is 0'),
        (['--parts', '1.5'], r'parts must be from 0 to 1, but is 1\.5'),
        (['--rate', 'nan'], 'rate must be at least 0, but is nan'),
        (['--threads', '0'], '--threads must be at least 1, but is 0'),
        (['--save-every', '0'], '--save-every must be at least 1, but is 0'),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        train_sam.main(arguments)
