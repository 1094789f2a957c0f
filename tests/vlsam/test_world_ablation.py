"""The ablation: its rows, its figures on pictures with one right answer, sharing that changes nothing."""

import sys
from pathlib import Path

import numpy as np
import pytest
from rule_segmenter import RuleSegmenter
from rule_vlm import RuleVLM, draw

from atss_ext.datasets.shapes import Scene
from atss_ext.errors import UserError
from atss_ext.vlsam.ensemble import DEFAULT_QUESTIONS
from atss_ext.vlsam.options import PipelineOptions
from atss_ext.vlsam.pipeline import Pipeline

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'vlsam_world'))

import ablation
import pages
from ablation_rows import Row, paper_rows
from ablation_table import markdown, plain
from shared_models import SharedSegmenter, SharedVLM

PURPLE = (128, 48, 176)  # which the stand-in for a VLM has no name for


def scene(named, unnamed=()):
    image = draw((64, 64), {name: [box] for name, box in named})
    for x1, y1, x2, y2 in unnamed:
        image[y1:y2, x1:x2] = PURPLE
    boxes = [box for _, box in named] + list(unnamed)
    masks = np.zeros((len(boxes), 64, 64), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return Scene(
        image=image,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        masks=masks,
        category_ids=np.ones(len(boxes), np.int64),
        names=tuple([name for name, _ in named] + ['purple square'] * len(unnamed)),
        visible=np.ones(len(boxes), np.float32),
    )


SCENES = [
    scene([('red square', (4, 4, 20, 20)), ('blue square', (40, 36, 60, 60))], [(40, 4, 60, 24)]),
    scene([]),
    scene([('green square', (20, 24, 44, 40))]),
]


@pytest.fixture
def pipeline():
    return Pipeline(RuleVLM(), RuleSegmenter(), PipelineOptions(questions='single', corners=False))


def test_rows_are_the_steps_of_the_paper_in_its_order():
    none = {'feedback': 0, 'resample': 0}
    plain_maps, scaled = ({'flow': flow, 'heads': 'uniform'} for flow in ('plain', 'regularised'))
    weighted = {'flow': 'regularised', 'heads': 'mean-max'}
    expected = [
        ('naive attention', {'flow': 'none', 'heads': 'uniform'}, 0, none, False, 'single'),
        ('+ flow, not regularised', plain_maps, 0, none, False, 'single'),
        ('+ regularisation', scaled, 0, none, False, 'single'),
        ('+ head weights', weighted, 0, none, False, 'single'),
        ('+ point pairs', weighted, 1, none, False, 'single'),
        ('+ refinement', weighted, 1, {'feedback': 1, 'resample': 1}, False, 'single'),
        ('+ multi-scale', weighted, 1, {'feedback': 1, 'resample': 1}, True, 'single'),
        ('+ question ensemble', weighted, 1, {'feedback': 1, 'resample': 1}, True, 'default'),
    ]
    found = [
        (
            row.name,
            row.settings['flow'],
            row.settings['prompts']['negatives'],
            row.settings['refine'],
            row.settings['corners'],
            row.settings['questions'],
        )
        for row in paper_rows()
    ]
    assert found == expected
    # The last row is what a user gets who sets nothing: the whole method of the paper.
    assert PipelineOptions.from_mapping(paper_rows()[-1].settings) == PipelineOptions()


def test_the_table_by_hand(pipeline):
    table = ablation.run(pipeline, SCENES).table()
    assert [row['name'] for row in table['rows'][-3:]] == [
        '+ question ensemble',
        "this world's settings",
        'oracle: true boxes',
    ]
    # Of four objects three are named; the purple one is no one's, but its box prompts the segmenter.
    assert table['names'] == {'precision': 1.0, 'recall': 0.75, 'exact': pytest.approx(2 / 3)}
    for row in table['rows'][:-1]:
        for figure in ('mAR', 'AR50', 'AR75', 'mask_mAR', 'named_mAR'):
            assert row[figure] == pytest.approx(0.75), (row['name'], figure)
    assert table['rows'][-1]['mAR'] == 1
    assert table['oracle_ratio'] == table['paper_ratio'] == pytest.approx(0.75)
    assert table['rows'][0]['detections'] == 1  # three in three scenes, and none in corner views
    assert table['scenes'] == 3


def test_a_part_of_the_scenes_has_a_table_of_its_own(pipeline):
    found = ablation.run(pipeline, SCENES, rows=[])
    assert found.table(1)['names']['recall'] == pytest.approx(2 / 3)
    assert found.table(1)['rows'][0]['mAR'] == pytest.approx(2 / 3)
    assert found.table(1)['paper_ratio'] is None


def test_sharing_asks_once_and_changes_nothing(pipeline):
    rows = [Row('all', {}), Row('whole', {'corners': False})]
    found = ablation.run(pipeline, SCENES, rows)
    views, questions = 5, len(DEFAULT_QUESTIONS)
    # Corners that look alike share an answer; a question about a view is asked once, whatever the rows.
    assert len(pipeline.vlm.questions) <= len(SCENES) * views * questions
    assert pipeline.segmenter.embedded <= len(SCENES) * views
    for row in rows:
        alone = Pipeline(RuleVLM(), RuleSegmenter(), PipelineOptions.from_mapping(row.settings))
        for shared, picture in zip(found.found[row.name], SCENES, strict=True):
            own = alone.detect(picture.image)
            assert shared.names == own.names
            assert shared.run_lengths == own.run_lengths
            np.testing.assert_array_equal(shared.scores, own.scores)


def test_what_is_forgotten_is_asked_again():
    vlm, segmenter = SharedVLM(RuleVLM()), SharedSegmenter(RuleSegmenter())
    image = SCENES[0].image
    for _ in range(2):
        answer = vlm.answer([image, image], ['a?', 'b?'], [0, 0])[0]
        assert vlm.read(answer) is vlm.read(answer)
        segmenter.embed(image)
    assert vlm.inner.questions == ['a?', 'b?']
    assert segmenter.inner.embedded == 1
    vlm.forget()
    segmenter.forget()
    vlm.answer([image], ['a?'], [0])
    segmenter.embed(image)
    assert vlm.inner.questions == ['a?', 'b?', 'a?']
    assert segmenter.inner.embedded == 2


def test_tables_for_people():
    row = {'mAR': 0.5, 'AR50': 0.75, 'AR75': 0.25, 'mask_mAR': 0.4, 'named_mAR': 0.3, 'detections': 2.25}
    table = {
        'command': 'python x.py',
        'split': 'rules',
        'seed': 7,
        'scenes': 4,
        'names': {'precision': 0.9, 'recall': 0.8, 'exact': 0.75},
        'rows': [{'name': 'one', **row}],
        'oracle_ratio': 0.815,
        'paper_ratio': 0.641,
    }
    written = markdown(table)
    assert written.startswith('`python x.py`: 4 scenes of the split "rules" (seed 7). Names')
    assert 'precision 0.900, recall 0.800; 75% of the sentences' in written
    assert "the whole method of the paper reaches 64%, this world's settings reach 82%." in written
    assert 'the paper' not in markdown({**table, 'paper_ratio': None})
    assert written.endswith('| one | 50.0 | 75.0 | 25.0 | 40.0 | 30.0 | 2.2 |')
    assert 'one      50.0      75.0      25.0      40.0      30.0       2.2' in plain(table)


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(UserError, match='--scenes must be at least 1, but is 0'):
        ablation.main(['--scenes', '0'])
    with pytest.raises(UserError, match=r'none\.py does not exist; correct its path'):
        ablation.main(['--scenes', '1', '--config', str(tmp_path / 'none.py')])


def test_a_page_is_filled_between_its_marks(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('a\n<!-- table: begin -->\n\nold\n\n<!-- table: end -->\nz\n')
    pages.fill_page(page, 'table', 'one\ntwo')
    assert page.read_text() == 'a\n<!-- table: begin -->\n\none\ntwo\n\n<!-- table: end -->\nz\n'
    assert pages.split_page(page, 'table')[1] == 'one\ntwo'
    with pytest.raises(UserError, match='has no section other'):
        pages.fill_page(page, 'other', '')
    with pytest.raises(UserError, match='does not exist'):
        ablation.main(['--page', str(tmp_path / 'none.md')])


def test_a_file_in_the_place_of_a_folder_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'the folder .*file cannot be made \(.+\); choose another'):
        ablation.main(['--json', str(tmp_path / 'file' / 'table.json')])
