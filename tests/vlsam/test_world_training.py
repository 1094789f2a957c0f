"""The small model's training: its targets by hand, that it learns, that an interrupted run ends the same."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_ext.errors import UserError
from atss_ext.vlsam.world.processor import build_processor
from atss_ext.vlsam.world.scenes import SPEC, names_in_order, scene_of, sentence

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'vlsam_world'))

import scene_cache
import train_vlm
import vlm_batches
import vlm_scoring
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


@pytest.fixture(scope='module')
def recipe():
    return train_vlm.Recipe(steps=20, eyes=0.0, batch=8, scenes=48)


def test_targets_are_the_sentence_of_the_scene_or_of_its_mirror_image(scenes):
    tokenizer = build_processor().tokenizer
    batch = vlm_batches.Batches(scenes, build_processor(), seed=1, size=16, patch=8)(step=0)
    originals = {scene_of('train', i).image.tobytes(): scene_of('train', i) for i in range(48)}
    mirrored_seen = set()
    for pixels, tokens, targets, orders in zip(
        batch.pixels, batch.tokens, batch.targets, batch.orders, strict=True
    ):
        image = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        mirror = image.tobytes() not in originals
        scene = originals[np.ascontiguousarray(image[:, ::-1] if mirror else image).tobytes()]
        middles = scene.boxes[:, 0] + scene.boxes[:, 2]
        if len(set(middles.tolist())) == len(middles):
            names = [scene.names[i] for i in np.argsort(-middles if mirror else middles)]
            told = targets[targets >= 0]
            assert tokenizer.decode(told, skip_special_tokens=True) == sentence(names)
            assert told[-1] == tokenizer.eos_token_id
        # The next token is the target, so that teacher forcing sees the sentence itself.
        places = torch.nonzero(targets >= 0)[:, 0]
        assert torch.equal(tokens[places + 1], targets[places])
        assert orders.max() == len(scene.names)
        mirrored_seen.add(mirror)
    assert mirrored_seen == {True, False}


def test_parts_are_told_by_what_they_show(scenes):
    tokenizer = build_processor().tokenizer
    batches = vlm_batches.Batches(scenes, build_processor(), seed=1, size=32, patch=8, parts=1.0)
    batch = batches(step=0)
    originals = {scene_of('train', i).image.tobytes() for i in range(48)}
    longest = 0
    for pixels, targets, categories in zip(batch.pixels, batch.targets, batch.categories, strict=True):
        image = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert image.tobytes() not in originals
        told = tokenizer.decode(targets[targets >= 0], skip_special_tokens=True)
        names = set(vlm_scoring.split_names(told))
        assert {SPEC.category_names[i - 1] for i in categories.tolist() if i > 0} == names
        longest = max(longest, len(names))
    assert longest > 1


def test_a_batch_depends_on_seed_and_step_alone(scenes):
    first, second = (
        vlm_batches.Batches(scenes, build_processor(), seed=3, size=4, patch=8, parts=0.5) for _ in range(2)
    )
    first(0)
    for ours, theirs in zip(first(7), second(7), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(first(7).pixels, first(8).pixels)


def test_twenty_steps_lower_the_loss(scenes, recipe):
    training = train_vlm.VlmTraining(recipe, scenes)
    losses = [training.advance() for _ in range(20)]
    first, last = losses[:3], losses[-3:]
    for name, share in (('words', 0.75), ('patches', 0.8)):
        assert sum(x[name] for x in last) < share * sum(x[name] for x in first)


def test_an_interrupted_run_ends_with_the_same_weights(scenes, tmp_path):
    recipe = train_vlm.Recipe(steps=6, eyes=0.5, batch=4, scenes=48)
    whole = train_vlm.VlmTraining(recipe, scenes)
    run(whole, tmp_path / 'whole', quiet=True)

    broken = train_vlm.VlmTraining(recipe, scenes)
    advance = broken.advance

    def killed_after_five():
        if broken.step == 5:
            raise KeyboardInterrupt
        return advance()

    broken.advance = killed_after_five
    with pytest.raises(KeyboardInterrupt):
        run(broken, tmp_path / 'broken', every=2, quiet=True)
    again = train_vlm.VlmTraining(recipe, scenes)
    assert again.resume(tmp_path / 'broken')
    assert again.step == 4
    run(again, tmp_path / 'broken', quiet=True)
    for ours, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_recipe_does_not_go_on(scenes, tmp_path):
    run(train_vlm.VlmTraining(train_vlm.Recipe(steps=1, batch=2), scenes), tmp_path, quiet=True)
    other = train_vlm.VlmTraining(train_vlm.Recipe(steps=2, batch=2), scenes)
    with pytest.raises(UserError, match='was trained with steps = 1, not 2'):
        other.resume(tmp_path)


def test_the_folder_loads_as_any_model_and_says_the_same(scenes, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    training = train_vlm.VlmTraining(train_vlm.Recipe(steps=2, batch=4), scenes)
    run(training, tmp_path, quiet=True)
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
    )
    assert sum(weight.numel() for weight in model.parameters()) < 1_500_000
    images = [scene_of('check', i).image for i in range(3)]
    assert vlm_scoring.answers(model, processor, images) == vlm_scoring.answers(
        training.model, training.processor, images
    )


def test_scores_of_names():
    said = [vlm_scoring.split_names('a red circle, an orange square, a red circle'), [], ['blue square']]
    true = [['red circle', 'red circle', 'green star'], ['red circle'], ['blue square']]
    score = vlm_scoring.score_names(said, true)
    assert score == (3 / 4, 3 / 5, 1 / 3)
    assert vlm_scoring.split_names('nothing') == []


def test_the_command_trains_and_says_how_well_it_names(tmp_path, capsys):
    arguments = ['--steps', '20', '--batch', '2', '--scenes', '8', '--check-scenes', '2']
    train_vlm.main([*arguments, '--out', str(tmp_path / 'vlm'), '--cache', str(tmp_path / 'scenes')])
    printed = capsys.readouterr().out
    assert 'step 20/20: loss of patches' in printed
    assert 'names of 2 scenes' in printed
    assert (tmp_path / 'vlm' / 'training.json').is_file()
    with pytest.raises(UserError, match='steps must be at least 1, but is 0'):
        train_vlm.main(['--steps', '0', '--out', str(tmp_path / 'vlm'), '--cache', str(tmp_path / 'scenes')])
    (tmp_path / 'file').touch()
    for option, value, message in (
        ('--out', tmp_path / 'file', 'cannot be made'),
        ('--cache', tmp_path / 'file', 'cannot be made'),
        ('--seed', '-1', 'seed must be at least 0, but is -1'),
        ('--workers', '-1', '--workers must be at least 0, but is -1'),
        ('--check-scenes', '-1', '--check-scenes must be at least 0, but is -1'),
    ):
        places = ['--out', str(tmp_path / 'other'), '--cache', str(tmp_path / 'scenes')]
        with pytest.raises(UserError, match=message):
            train_vlm.main([*places, option, str(value)])


def test_the_vocabulary_has_the_categories_of_the_world():
    assert set(SPEC.category_names) >= {
        name for i in range(20) for name in names_in_order(scene_of('train', i))
    }
