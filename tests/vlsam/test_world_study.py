"""The study of prompts: figures by hand, chance against theory, and that it finds what was planted."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_ext.errors import UserError
from atss_ext.vlsam.ensemble import View, views
from atss_ext.vlsam.names import ROW_RULES, Mention, find_names
from atss_ext.vlsam.options import PipelineOptions
from atss_ext.vlsam.prompts import PointPrompts, PromptOptions, sample_points
from atss_ext.vlsam.protocols import Answer, Probabilities, Reading, TokenGrid
from atss_ext.vlsam.world.processor import build_tokenizer
from atss_ext.vlsam.world.scenes import names_in_order, reading_order, scene_of

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'vlsam_world'))

import prompt_study
import row_rules
import scene_cache
import study_answers
import study_scores
import study_settings
import study_tables
import train_vlm
from study_scores import Bootstrap, Estimate, Study
from study_settings import Setting
from training import run

PROMPT = 70  # one token, 64 patches, five words
COMMON = 16
EMPTY = Answer('', [], [], None)
SCENES = [scene_of('rules', index) for index in (1, 2, 4, 5, 6, 7)]


def best_cell(mask: np.ndarray) -> int:
    """Of 8 x 8, the one the object fills most."""
    return int(mask.reshape(8, 8, 8, 8).mean(axis=(1, 3)).argmax())


class PlantedVLM:
    """Names all there is in whole scenes. Its first layer looks at an object where its first word is chosen.

    Elsewhere, and everywhere in the second layer, it looks at patch ``COMMON``. The regularisation prefers
    objects that come later in the sequence, so that half of an object's rows find some of them.
    """

    def __init__(self, *args, **options):
        self.known = {scene.image.tobytes(): scene for scene in SCENES}
        self.tokenizer = build_tokenizer()

    def answer(self, images, questions, seeds):
        scenes = [self.known.get(image.tobytes()) for image in images]
        return [
            row_rules.true_answer(EMPTY, names_in_order(scene) if scene else [], self.tokenizer)._replace(
                prompt=scene
            )
            for scene in scenes
        ]

    def read(self, answer, offset=0):
        length = PROMPT + len(answer.token_ids)
        seen = torch.full((length,), 1 + COMMON)
        layers = [seen, seen.clone()]
        for place, number in enumerate(reading_order(answer.prompt.boxes).tolist()):
            layers[0][PROMPT + 4 * place + offset] = 1 + best_cell(answer.prompt.masks[number])
        layers = [Probabilities(torch.nn.functional.one_hot(one, length).float()[None]) for one in layers]
        grid = TokenGrid(torch.arange(1, 65).view(8, 8))
        return Reading(layers, PROMPT, torch.zeros(len(answer.token_ids)), [grid])


@pytest.fixture(scope='module')
def study():
    return Study(study_answers.collect(PlantedVLM(), SCENES, ['What is there?'], corners=0))


def right(scene, number: int) -> bool:
    """Whether the centre of an object's best cell lies on it."""
    row, column = divmod(best_cell(scene.masks[number]), 8)
    return bool(scene.masks[number][8 * row + 4, 8 * column + 4])


def test_which_mentions_are_true_in_a_view():
    masks = np.zeros((4, 8, 8), bool)
    masks[0, 0:4, 3:5] = True  # half of it in the left half
    masks[1, 0:3, 2:7] = True  # two fifths
    masks[2, 2:6, 0:1] = True
    masks[3, 5:8, 5:8] = True
    names = ('red circle', 'blue star', 'red circle', 'green star')
    scene = SCENES[0]._replace(masks=masks, names=names)
    said = [Mention(name, 0, 1) for name in ('blue star', 'red circle', 'red circle', 'red circle')]
    # In the left half, from left to right: the third object, then the first.
    left = study_answers.judge(said, scene, View((0, 0, 4, 8), 'left'))
    assert [index for index, _ in left] == [1, 2]
    assert np.array_equal(left[0][1], masks[2][:, :4])
    assert np.array_equal(left[1][1], masks[0][:, :4])
    whole = study_answers.judge(said, scene, View((0, 0, 8, 8), 'whole'))
    assert [(index, int(mask.sum())) for index, mask in whole] == [(0, 15), (1, 4), (2, 8)]
    assert study_answers.judge([], scene, View((0, 0, 8, 8), 'whole')) == []


def test_what_is_asked_and_read():
    asked = []

    class Asked(PlantedVLM):
        def answer(self, images, questions, seeds):
            asked.append((questions[0], images[0].shape[:2]))
            return super().answer(images, questions, seeds)

    subjects = study_answers.collect(Asked(), SCENES, ['one', 'two'])
    whole, corner = (64, 64), (32, 32)
    assert asked == [('one', whole), *[('one', corner)] * 4, ('two', whole)]
    # Corners are unknown to it, and an answer without a true name is not read.
    assert [(one.scene, one.whole, one.question) for one in subjects] == [
        (scene, True, question) for question in (0, 1) for scene in range(len(SCENES))
    ]
    assert [len(one.judged) for one in subjects[:6]] == [len(scene.names) for scene in SCENES]


def test_points_are_judged_by_the_pixel_they_fall_on():
    mask = np.zeros((4, 8), bool)
    mask[1, 2:4] = True

    def found(positive, negative, labels=(1, 0)):
        points = torch.tensor([[positive, [0, 0], negative]])
        rest = (torch.zeros(1, 1, 1), torch.zeros(1), torch.ones(1), torch.zeros(1, 1, 1))
        prompts = PointPrompts(points, torch.tensor([[labels[0], -10, labels[1]]]), *rest)
        return study_scores.points_right(prompts, 0, mask)

    assert found([2.1 / 8, 1.9 / 4], [0.5 / 8, 0.5 / 4]) == (True, True)
    assert found([1.9 / 8, 1.9 / 4], [3.9 / 8, 1.1 / 4]) == (False, False)
    assert found([2.1 / 8, 1.9 / 4], [0.5 / 8, 0.5 / 4], (-10, -10)) == (False, False)


def test_answers_are_prompted_one_by_one_or_together():
    maps = [torch.rand(count, 8, 8) ** 4 for count in (2, 1, 3)]
    for options in (
        PromptOptions(smoothing=0.5, position='centroid'),
        PromptOptions(contrast='mean'),
        PromptOptions(sinks='median', sink_ratio=2.0),
    ):
        for ours, one in zip(study_scores.prompt(maps, options), maps, strict=True):
            for field, theirs in zip(ours, sample_points(one, options), strict=True):
                torch.testing.assert_close(field, theirs)
    assert study_scores.prompt([], PromptOptions()) == []


def test_scores_of_a_planted_model(study):
    truth = [right(scene, number) for scene in SCENES for number in reading_order(scene.boxes).tolist()]
    assert sum(truth) > 1
    first = study.scores(Setting(layers=(0, 1), rows='generating-first'))
    assert first.hit.tolist() == truth
    assert first.scene.tolist() == [index for index, scene in enumerate(SCENES) for _ in scene.names]
    assert first.whole.all()
    assert (first.auc > 0.5).all()
    assert np.array_equal(first.pair, first.hit * first.beside)
    # All look at one patch, and no object lies at its centre.
    row, column = divmod(COMMON, 8)
    assert not any(scene.masks[:, 8 * row + 4, 8 * column + 4].any() for scene in SCENES)
    last = study.scores(Setting(layers=(1, 2), rows='generating-first'))
    assert not last.hit.any()
    assert study.scores(Setting(layers=(0, 1), rows='last')).hit.sum() == 0
    assert study.scores(Setting(layers=(1, 2), rows='generating-first')) is last


def test_the_planted_combination_is_chosen(study):
    options = {
        'layers': [{'layers': one} for one in ((1, 2), (0, 1), None)],
        'rows': [{'rows': rule} for rule in ROW_RULES],
        'question': [{'question': 0}, {'question': 1}],  # of which nothing is known
    }
    chosen = prompt_study.choose(study, options, Bootstrap(range(3)))
    assert (chosen.layers, chosen.rows) == ((0, 1), 'generating-first')
    options.pop('question')
    found = prompt_study.run(study, options, 6, 0)
    assert found.chosen == chosen
    shares = [
        np.mean([right(scene, number) for scene in half for number in range(len(scene.names))])
        for half in (SCENES[:3], SCENES[3:])
    ]
    assert [(part, row.setting) for part, row in found.halves] == [
        (half, setting) for half in ('first half', 'second half') for setting in (Setting(), chosen)
    ]
    assert [row.whole['hit'].value for _, row in found.halves[1::2]] == pytest.approx(shares)
    assert len(found.alone) == len(found.around) == 1 + 2 + 5
    assert found.around[0][1].gain == (0, 0, 0, 0)
    # The table around the combination is of the second half.
    assert found.around[0][1].whole['hit'].value == pytest.approx(shares[1])
    assert found.alone[0][1].objects == (sum(len(scene.names) for scene in SCENES), 0)


def test_the_second_half_has_no_say():
    """There the name's last word looks at the object, which nobody who has seen the first half may know."""

    class TwoFaced(PlantedVLM):
        def read(self, answer):
            first = any(answer.prompt is scene for scene in SCENES[:3])
            return super().read(answer, offset=0 if first else 2)

    study = Study(study_answers.collect(TwoFaced(), SCENES, ['What is there?'], corners=0))
    options = {'layers': [{'layers': (0, 1)}], 'rows': [{'rows': rule} for rule in ROW_RULES]}
    assert prompt_study.choose(study, options, Bootstrap(range(3, 6))).rows == 'last'
    found = prompt_study.run(study, options, 6, 0)
    assert found.chosen.rows == 'generating-first'
    first, second = (row.whole['hit'].value for _, row in found.halves[1::2])
    assert first == 1
    assert second == 0
    assert found.around[0][1].whole['hit'].value == 0
    around = {row.setting.rows: row.whole['hit'].value for _, row in found.around}
    assert around['last'] == 1
    alone = found.alone[0][1].objects
    assert alone == (sum(len(scene.names) for scene in SCENES), 0)


def test_bootstrap_of_independent_scenes_is_the_textbooks_error():
    values = np.random.default_rng(5).random(400)
    scene = np.arange(400) + 7
    bootstrap = Bootstrap(range(7, 407), repeats=4000)
    found = bootstrap.mean(values, scene)
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(error, rel=0.05)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)
    # Four equal objects a scene tell no more than one.
    again = bootstrap.mean(np.repeat(values, 4), np.repeat(scene, 4))
    assert again == pytest.approx(found)
    # The scenes are the same for both: what all gain is certain.
    paired = bootstrap.difference(values + 0.25, scene, values, scene)
    assert paired == pytest.approx((0.25, 0, 0.25, 0.25), abs=1e-9)
    other = np.random.default_rng(6).random(400)
    loose = bootstrap.difference(other, scene, values, scene)
    assert loose.error == pytest.approx((other - values).std() / 20, rel=0.05)
    assert Bootstrap(range(7, 407), repeats=4000).mean(values, scene) == found
    assert Bootstrap(range(7, 407), seed=1, repeats=4000).mean(values, scene).error != found.error


def test_scenes_count_by_their_objects():
    bootstrap = Bootstrap(range(3), repeats=50)
    found = bootstrap.mean(np.array([1.0, 0, 0, 1]), np.array([0, 2, 2, 2]))
    assert found.value == 0.5


def test_settings_and_factors():
    setting = study_settings.changed(Setting(), {'sinks': 'median', 'sink_ratio': 5.0})
    assert setting.prompt_options() == PromptOptions(sinks='median', sink_ratio=5.0)
    assert study_settings.changed(setting, {'sinks': 'off'}) == Setting()
    chosen = Setting(flow='plain', layers=(0, 3), rows='mean', contrast='mean', smoothing=0.75, question=2)
    assert chosen.config() == {
        'flow': {'flow': 'plain', 'layers': (0, 3)},
        'rows': 'mean',
        'prompts': {'contrast': 'mean', 'smoothing': 0.75},
    }
    options = PipelineOptions.from_mapping(chosen.config())
    assert (options.flow, options.prompts) == (chosen.flow_options(), chosen.prompt_options())
    assert (Setting().flow_options(), Setting().prompt_options(), Setting().rows) == (
        PipelineOptions().flow,
        PipelineOptions().prompts,
        PipelineOptions().rows,
    )
    found = study_settings.factors(4, 3)
    ranges = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 4), (2, 3), (2, 4), (3, 4)]
    assert [change['layers'] for change in found['layers']] == [None, *ranges]
    assert [change['layers'] for change in study_settings.factors(1, 1)['layers']] == [None]
    assert len(found['flow, heads']) == 6
    for changes in found.values():  # the defaults are among them
        assert [study_settings.changed(Setting(), change) for change in changes].count(Setting()) == 1
    words = study_settings.describe({'layers': (0, 3), 'sink_ratio': 5.0, 'question': 3})
    assert words == 'layers 1-3, sink ratio 5.0, question 4'
    assert study_settings.describe({'layers': (2, 3)}) == 'layers 3'
    assert study_settings.describe({'layers': None}) == 'layers all'


def test_tables_by_hand():
    def row(setting, value, low, high, corners=True):
        part = {name: Estimate(value, 0.01, 0, 1) for name in study_tables.METRICS}
        gain = Estimate(value - 0.5, 0.02, low, high)
        return study_tables.Row(setting, Setting(), (4, 5), part, part if corners else None, gain)

    table = [
        ('', row(Setting(), 0.5, 0, 0)),
        ('rows', row(Setting(rows='mean'), 0.625, 0.1, 0.15)),
        ('smoothing', row(Setting(smoothing=1.0), 0.25, -0.3, -0.2)),
        ('question', row(Setting(question=1), 0.5, -0.1, 0.1, corners=False)),
    ]
    lines = study_tables.markdown(table).splitlines()
    half = ' | '.join(['0.500 ± 0.010'] * 4)
    assert lines[0].startswith(
        '| part | change | pair, whole | hit, whole | beside, whole | auc, whole | pair, c'
    )
    assert lines[2] == f'|  | none | {half} | {half} |  |'
    more = ' | '.join(['0.625 ± 0.010'] * 8)
    assert lines[3] == f'| rows | rows mean | {more} | +0.125 (+0.100 to +0.150) |'
    assert lines[5] == f'| question | question 2 | {half} |  |  |  |  | +0.000 (-0.100 to +0.100) |'
    assert {line.count('|') for line in lines} == {12}
    text = study_tables.document(
        Setting(rows='mean'), table, table[:1], table[:1], {**FACTS, 'questions': ['Who?', 'What?']}
    )
    assert 'Whose interval says that they gain: rows mean (+0.125).' in text
    assert 'Whose interval says that they lose: smoothing 1.0 (-0.250).' in text
    assert "`{'rows': 'mean'}`" in text
    assert (
        '`python study.py`: scenes 0 to 8 of the split "rules" (seed 3), bootstrap seed 2; 4 objects' in text
    )
    assert 'Questions: 1. "Who?"; 2. "What?";' in text


FACTS = {'command': 'python study.py', 'scenes': 9, 'split': 'rules', 'split_seed': 3, 'seed': 2}


def test_the_command(tmp_path, capsys, monkeypatch):
    """All of it on a stand-in; that the model's own answers can be read, other tests show."""
    (tmp_path / 'config.json').touch()
    monkeypatch.setattr(prompt_study, 'TransformersVLM', PlantedVLM)
    monkeypatch.setattr(prompt_study, 'scene_of', lambda split, index: SCENES[index])
    page, numbers = tmp_path / 'docs' / 'study.md', tmp_path / 'work' / 'study.json'
    arguments = ['--model', str(tmp_path), '--scenes', '4', '--out', str(page), '--json', str(numbers)]
    prompt_study.main(arguments)
    text, found = page.read_text(encoding='utf-8'), json.loads(numbers.read_text(encoding='utf-8'))
    assert text.strip() in capsys.readouterr().out
    assert f'`{found["command"]}`: scenes 0 to 3 of the split "rules"' in text
    assert found['command'].endswith(f'prompt_study.py {" ".join(arguments)}')
    assert f'`{found["chosen"]}`' in text.replace('(0, 1)', '[0, 1]')
    assert found['chosen']['flow']['layers'] == [0, 1]
    # Flows, layers, rows, contrast, position, smoothing, sinks, thresholds and questions besides the default.
    assert len(found['alone']) == 1 + 5 + 2 + 5 + 1 + 1 + 4 + 2 + 4 + 3
    number = sum(len(scene.names) for scene in SCENES[:4])
    assert {tuple(row['objects']) for row in found['alone']} == {(number, 0)}
    for row in found['alone']:
        share = f'{row["whole"]["hit"]["value"]:.3f} ± {row["whole"]["hit"]["error"]:.3f}'
        assert share in text
    assert len(found['questions']) == 4


def test_what_cannot_be_studied_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'holds no model; make one with tools/vlsam_world/train_vlm\.py'):
        prompt_study.main(['--model', str(tmp_path)])
    (tmp_path / 'config.json').touch()
    with pytest.raises(UserError, match='--scenes must be at least 2, a half to choose on each, but is 1'):
        prompt_study.main(['--model', str(tmp_path), '--scenes', '1'])


def test_a_model_that_learned_nothing_names_nothing_true(tmp_path):
    training = train_vlm.VlmTraining(train_vlm.Recipe(steps=1, batch=2), scene_cache.draw_scenes(4))
    run(training, tmp_path / 'vlm', quiet=True)
    arguments = ['--scenes', '2', '--out', str(tmp_path / 'a.md'), '--json', str(tmp_path / 'a.json')]
    with pytest.raises(UserError, match='names nothing true in 2 scenes; train it for longer'):
        prompt_study.main(['--model', str(tmp_path / 'vlm'), *arguments])
    assert not (tmp_path / 'a.md').exists()


def test_the_stand_in_says_what_the_views_are_asked():
    answer = PlantedVLM().answer([SCENES[0].image], [''], [0])[0]
    assert [mention.name for mention in find_names(answer.text)] == list(names_in_order(SCENES[0]))
    assert len(views(64, 64)) == 5
