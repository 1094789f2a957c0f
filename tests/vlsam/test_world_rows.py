"""The measurement of row rules: its figures by hand, and that it finds the rule a planted model follows."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_ext.errors import UserError
from atss_ext.vlsam.protocols import Answer, Probabilities, Reading, TokenGrid
from atss_ext.vlsam.world.processor import build_tokenizer
from atss_ext.vlsam.world.scenes import names_in_order, reading_order, scene_of, sentence

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'vlsam_world'))

import row_rules
import scene_cache
import train_vlm
from map_quality import map_quality, match_names, mean_quality
from training import run

PROMPT = 70  # one token, 64 patches, five words
EMPTY = Answer('', [], [], None)


def test_quality_of_a_map_by_hand():
    # Cells of 4 x 4 pixels: the object fills the first, half of the second and 1/8 of the third.
    mask = np.zeros((4, 16), bool)
    mask[:, :6] = True
    mask[0, 8:10] = True
    # The third cell is highest but only touched; among (0.5, 0.2) against 0.3: one pair of two is right.
    quality = map_quality(np.array([[0.5, 0.2, 0.9, 0.3]]), mask)
    assert quality.hit == 0
    assert quality.touch == 1
    # Beside it lie the third cell (share 1/8) and the fourth: 0.5 > 0.3 only, one pair of four.
    assert quality.auc == 0.25
    assert map_quality(np.array([[0.5, 0.2, 0.1, 0.2]]), mask) == (1, 1, (2 + 1 + 0.5) / 4)
    assert map_quality(np.array([[0.0, 0.0, 0.0, 1.0]]), mask) == (0, 0, (0.5 + 0 + 0.5 + 0) / 4)


def test_an_object_smaller_than_half_a_cell_has_its_best_cell():
    mask = np.zeros((8, 16), bool)
    mask[3:6, 11:14] = True
    assert map_quality(np.array([[0.1, 0.3]]), mask) == (1, 1, 1.0)


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='a map of 1 x 3 cells needs a mask of whole cells, not 4 x 16'):
        map_quality(np.zeros((1, 3)), np.ones((4, 16), bool))


def test_means_and_matches():
    assert mean_quality([map_quality(np.eye(2)[:1], np.eye(2, dtype=bool)[:1])] * 2) == (1, 1, 1)
    said = ['red circle', 'blue star', 'red circle', 'red circle']
    assert match_names(said, ['red circle', 'green star', 'red circle']) == [(0, 0), (2, 2)]


def test_the_true_answer_is_tokenised_with_its_characters():
    answer = row_rules.true_answer(EMPTY, ['red circle', 'blue square'], build_tokenizer())
    assert answer.text == 'a red circle, a blue square'
    pieces = [answer.text[start:end] for start, end in answer.spans]
    assert pieces == ['a', ' red', ' circle', ',', ' a', ' blue', ' square', '']
    assert len(answer.token_ids) == len(pieces)
    assert answer.token_ids[-1] == 2
    assert row_rules.true_answer(EMPTY, [], build_tokenizer()).text == 'nothing'


class PlantedVLM:
    """Looks at a name's object where the name's first word is generated, elsewhere at the first patch."""

    def __init__(self, scene):
        self.scene = scene

    def answer(self, images, questions, seeds):
        raise NotImplementedError

    def read(self, answer):
        length = PROMPT + len(answer.token_ids)
        seen = torch.ones(length, dtype=torch.int64)
        for place, number in enumerate(reading_order(self.scene.boxes).tolist()):
            shares = self.scene.masks[number].reshape(8, 8, 8, 8).mean(axis=(1, 3))
            generating = PROMPT + 4 * place  # that of "a", before the colour: a red circle ,
            seen[generating] = 1 + int(shares.argmax())
        probabilities = torch.nn.functional.one_hot(seen, length).float()[None]
        grid = TokenGrid(torch.arange(1, 65).view(8, 8))
        return Reading([Probabilities(probabilities)], PROMPT, torch.zeros(len(answer.token_ids)), [grid])


def test_the_rule_a_planted_model_follows_is_found():
    scene = scene_of('rules', 1)
    number = len(scene.names)
    assert number == 3
    assert not scene.masks[:, :8, :8].any()  # nothing lies on the first patch
    answer = row_rules.true_answer(EMPTY, names_in_order(scene), build_tokenizer())
    table = {}
    assert row_rules.measure(PlantedVLM(scene), answer, scene, table) == list(names_in_order(scene))
    assert len(table) == 6 * 3 * 2
    for setting, found in table.items():
        assert len(found) == number
        if setting.flow == 'none':
            expected = float(setting.rows == 'generating-first')
            assert mean_quality(found).hit == expected
    lines = row_rules.markdown(table).splitlines()
    assert lines[2].startswith('| generating-first | none | ')
    assert ' | 1.000 | 1.000 | ' in lines[2]
    assert len(lines) == 2 + len(table)


def test_false_names_are_not_judged():
    scene = scene_of('rules', 0)
    wrong = [name for name in ('red circle', 'green square', 'yellow triangle') if name not in scene.names][
        :1
    ]
    answer = row_rules.true_answer(EMPTY, wrong, build_tokenizer())
    table = {}
    assert row_rules.measure(PlantedVLM(scene), answer, scene, table) == wrong
    assert table == {}


def test_the_command_measures_a_trained_folder(tmp_path, capsys):
    scenes = scene_cache.draw_scenes(4)
    run(train_vlm.VlmTraining(train_vlm.Recipe(steps=1, batch=2), scenes), tmp_path / 'vlm', quiet=True)
    arguments = ['--model', str(tmp_path / 'vlm'), '--scenes', '2', '--out', str(tmp_path / 'rows.md')]
    row_rules.main(arguments)
    written = (tmp_path / 'rows.md').read_text(encoding='utf-8')
    assert written.strip() in capsys.readouterr().out
    count = sum(len(scene_of('rules', i).names) for i in range(2))
    assert f'The true sentence: {count} true names; names precision 1.000, recall 1.000.' in written
    assert 'scenes 0 to 1 of the split "rules"' in written
    assert written.count('| generating-first | regularised | mean-max |') >= 1


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'holds no model; make one with tools/vlsam_world/train_vlm\.py'):
        row_rules.main(['--model', str(tmp_path)])


def test_scenes_of_the_sentence_are_those_of_the_boxes():
    scene = scene_of('rules', 1)
    middles = (scene.boxes[:, 0] + scene.boxes[:, 2]) / 2
    assert sentence(names_in_order(scene)) == sentence([scene.names[i] for i in np.argsort(middles)])
