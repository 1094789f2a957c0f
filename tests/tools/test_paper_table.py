"""tools/analysis/paper_table.py: rows, runs that outlive a kill, literal tables of planted results."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_coco import REPO, environment

sys.path.insert(0, str(REPO / 'tools' / 'analysis'))

import atss_ext.cli  # noqa: F401  (before mmdet, as the tool does)

# isort: split
from _paper_report import Line, markdown, order, plot, put_section
from _paper_rows import TABLES, Scale, row_config
from _paper_runs import make_run

TOOL = 'analysis/paper_table.py'
SPLITS = {'train': ('t.json', 't'), 'val': ('v.json', 'v')}
ALL_ROWS = {row.config: row for rows in TABLES.values() for row in rows}


@pytest.fixture
def data(tiny) -> Path:
    """The tiny data as a data root in COCO's layout."""
    for split in ('train', 'val'):
        (tiny.root / split / 'images').mkdir(parents=True)
        shutil.move(tiny.root / f'{split}.json', tiny.root / split / 'annotations.json')
        for image in (tiny.root / 'images').glob(f'{split}_*'):
            shutil.move(image, tiny.root / split / 'images' / image.name)
    return tiny.root


def arguments(data, work):
    small = ('--seeds', '1', '--epochs', '1', '--size', '64', '--width', '4', '--batch-size', '2')
    return ['4', '--data', data, '--work-dir', work, '--rows', 'k3', 'k9', *small]


def results(work) -> dict[str, tuple[Path, dict]]:
    """Finished runs by their row."""
    found = [(path, json.loads(path.read_text())) for path in Path(work).glob('runs/*/result.json')]
    return {result['row']: (path, result) for path, result in found}


def test_a_killed_table_goes_on_with_the_row_it_was_at(data, in_process, tmp_path):
    work = tmp_path / 'work'
    command = [sys.executable, REPO / 'tools' / TOOL, *arguments(data, work)]
    process = subprocess.Popen(
        list(map(str, command)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:  # up to the start of the second row
        said.append(line)
        if line.startswith('[2/2] table4_k9, seed 0: training'):
            process.send_signal(signal.SIGKILL)
            break
    process.wait(timeout=60)
    assert said[-1].startswith('[2/2]'), ''.join(said)
    assert list(results(work)) == ['table4_k3']
    first, content = results(work)['table4_k3']
    stamp = first.stat().st_mtime_ns
    time.sleep(1.2)  # what trained for the killed one ends by itself
    assert list(results(work)) == ['table4_k3']

    code, said = in_process(TOOL, *arguments(data, work))
    assert code == 0, said
    assert set(results(work)) == {'table4_k3', 'table4_k9'}
    assert first.stat().st_mtime_ns == stamp
    assert 0 <= content['AP'] <= 100
    assert content['seconds'] > 0
    text = (work / 'table4.md').read_text()
    for row, paper in (('k = 3', '38.0'), ('k = 9', '39.3')):
        result = results(work)['table4_' + row.replace(' = ', '')][1]
        assert f'| {row} | {paper} | {result["AP"]:.1f} | {result["AP50"]:.1f} | 1 |' in text
    assert (work / 'table4.png').is_file()
    weights = sorted(path.name for path in first.parent.glob('*.pth'))
    assert weights == ['epoch_1.pth']


def test_a_run_that_fails_is_said(data, in_process, tmp_path):
    (data / 'train/images/train_1.png').write_text('no image')
    words = [word for word in arguments(data, tmp_path / 'work') if word != 'k3']
    code, said = in_process(TOOL, *words)
    assert code == 2
    assert '1 runs failed, and are tried again next time; first log: ' in said
    last = said.splitlines()[-1]
    assert last.startswith('error: table4_k9, seed 0, failed: image ')
    assert 'train_1.png cannot be read (it is no image, or it is damaged)' in last
    text = (tmp_path / 'work/table4.md').read_text()
    assert '| k = 9 | 39.3 | - | - | 0 |' in text
    assert '0 of 1 runs are done' in text


def planted(row, *aps):
    """A row of results with these APs, and half as much more at 0.5."""
    return Line(row, [{'AP': ap, 'AP50': 1.5 * ap, 'seconds': 30.0} for ap in aps])


def test_means_and_spreads_are_the_literal_ones():
    rows = TABLES[3]
    lines = [
        planted(rows[0], 10.0, 12.0),
        planted(rows[1], 20.0, 21.0),
        planted(rows[2], 13.0, 11.0),
        planted(rows[3], 15.0, 5.0),
        planted(rows[4]),
    ]
    text = markdown(3, lines, 2, 'A model.', 'python x')
    assert '| RetinaNet (#A=1) | 37.0 | 11.0 &plusmn; 1.4 | 16.5 &plusmn; 2.1 | 2 |' in text
    assert '| RetinaNet (#A=1) + ATSS | 39.3 | 20.5 &plusmn; 0.7 | 30.8 &plusmn; 1.1 | 2 |' in text
    assert '| FCOS + center sampling | 38.6 | 10.0 &plusmn; 7.1 | 15.0 &plusmn; 10.6 | 2 |' in text
    assert '| FCOS + ATSS | 39.2 | - | - | 0 |' in text
    assert 'A model. 8 of 10 runs are done, 4 min 00 s of training' in text
    # In order: ATSS above the others, FCOS above RetinaNet; against it: center sampling below those two.
    # Variances 2, 0.5, 2 and 50, pooled 13.6: differences above 2 x 3.7 are those of ATSS.
    assert order(lines) == (
        'Of 6 pairs of rows that the paper ranks, 4 come in its order. 3 differ by more than two standard '
        "errors (seeds of one row deviate by 3.7 AP): 3 in the paper's order, 0 against it; the others are "
        'within the spread of the seeds.'
    )
    assert order(lines) in text
    turned = [planted(rows[0], 20.0, 20.0), planted(rows[1], 10.0, 10.0)]
    assert '1 differ by more than two standard errors' in order(turned)
    assert "0 in the paper's order, 1 against it" in order(turned)
    mixed = [*turned, planted(rows[2], 15.0)]
    assert order(mixed).startswith(
        'Of 3 pairs of rows that the paper ranks, 0 come in its order. Of the 1 pairs of several seeds each, '
    )
    assert order([planted(rows[0], 1.0), planted(rows[1], 2.0)]) == (
        'Of 1 pairs of rows that the paper ranks, 1 come in its order; with a single seed nothing says how '
        'many of these are chance.'
    )
    assert order([planted(TABLES[5][2], 1.0), planted(TABLES[5][3], 2.0)]) == (
        'There are no two rows yet that the paper ranks.'
    )


def test_a_section_replaces_its_last_version_alone(tmp_path):
    page = tmp_path / 'docs/page.md'
    put_section(page, 3, 'three\n')
    page.write_text('# Head\n\n' + page.read_text() + '\nend\n')
    put_section(page, 4, r'four \1' + '\n')
    put_section(page, 3, r'new \g<0>' + '\n')
    assert page.read_text() == (
        '# Head\n\n<!-- table 3 -->\nnew \\g<0>\n<!-- end of table 3 -->\n\nend\n\n'
        '<!-- table 4 -->\nfour \\1\n<!-- end of table 4 -->\n'
    )


def test_the_plot_has_a_mark_at_every_mean(tmp_path):
    rows = TABLES[3][:2]
    plot(tmp_path / 'one.png', 3, [planted(rows[0], 10.0, 20.0), planted(rows[1], 30.0, 40.0)])
    plot(tmp_path / 'two.png', 3, [planted(rows[0], 10.0, 20.0), planted(rows[1])])
    one, two = (cv2.imread(str(tmp_path / f'{name}.png'))[..., ::-1].astype(int) for name in ('one', 'two'))
    blue = [np.abs(page - (0, 158, 235)).max(2) < 12 for page in (one, two)]
    lines = [np.flatnonzero(mask[:, 230:620].any(1)) for mask in blue]
    assert lines[0][0] < 62 + 34 < lines[0][-1]  # both rows
    assert lines[1][-1] < 62 + 34  # the first alone
    centres = [np.flatnonzero(blue[0][row]).mean() for row in (62 + 17, 62 + 51)]
    assert centres[0] + 100 < centres[1]


def test_every_row_has_a_config_whose_comment_says_its_ap():
    assert sorted(TABLES) == [1, 2, 3, 4, 5, 6, 7]
    for row in ALL_ROWS.values():
        first = row.path.read_text().splitlines()[0]
        assert f'{row.ap:.1f} AP' in first, row.config
    for table, rows in TABLES.items():
        folder = REPO / f'configs/paper/table{table}'
        assert {path.stem for path in folder.glob('*.py')} == {row.config for row in rows}


def small(name, **changes):
    return row_config(ALL_ROWS[name], Scale(**changes), SPLITS, ('a', 'b', 'c'))


def test_a_small_config_keeps_what_its_row_is_about():
    fcos = small('table3_fcos_center-sampling', width=8, size=96, epochs=5, batch_size=4)
    head, assigner = fcos.model.bbox_head, fcos.model.train_cfg.assigner
    assert (head.regression, head.num_classes, head.in_channels) == ('point', 3, 16)
    assert head.norm_cfg.num_groups == 4
    assert assigner.center_sampling_radius == 1.5
    # Half of the paper's, for four levels, the last without an end.
    assert [list(pair) for pair in assigner.regress_ranges] == [[-1, 32], [32, 64], [64, 128], [128, 1e8]]
    assert fcos.model.neck.in_channels == [8, 16, 32, 64]
    assert fcos.train_cfg.max_epochs == fcos.param_scheduler[1].T_max == 5
    assert fcos.train_dataloader.dataset.pipeline[2].scale == (96, 96)
    assert small('table4_k13').model.train_cfg.assigner.topk == 13
    assert small('table5_7s').model.bbox_head.anchor_generator.octave_base_scale == 3.5
    assert list(small('table6_4-1').model.bbox_head.anchor_generator.ratios) == [4.0]
    nine = small('table7_retinanet').model.bbox_head
    assert (nine.anchor_generator.scales_per_octave, nine.anchor_generator.octave_base_scale) == (3, 2)
    assert nine.norm_cfg is None
    assert (nine.loss_bbox.type, nine.reg_decoded_bbox, nine.centerness) == ('SmoothL1Loss', False, False)


def test_equal_trainings_of_different_rows_are_one_run():
    def folder(name, seed=0, digest='d', **changes):
        return make_run(name, small(name, **changes), seed, digest, Path('runs')).folder

    shared = ('table3_retinanet_atss', 'table4_k9', 'table5_8s', 'table7_atss_1x1')
    assert len({folder(name) for name in shared}) == 1
    assert folder('table2_ssc-point') == folder('table3_fcos')
    one = folder('table4_k9')
    others = [
        folder('table4_k11'),
        folder('table3_fcos_atss'),
        folder('table4_k9', seed=1),
        folder('table4_k9', digest='e'),
        folder('table4_k9', epochs=3),
        folder('table4_k9', size=64),
    ]
    assert len({one, *others}) == 7


BAD = {
    'table': (['8'], 'table 8 cannot be made at a small scale; choose one of 1, 2, 3, 4, 5, 6, 7'),
    'row': (['3', '--rows', 'fcos_ats'], "table 3 has no row fcos_ats (did you mean 'fcos_atss'?); it has "),
    'root': (
        ['4', '--data', 'gone'],
        'data root gone does not exist; correct --data, or write --data shapes',
    ),
    'split': (['4', '--data', 'empty'], 'data root empty has no train/annotations.json or annotations/'),
    'seeds': (['4', '--seeds', '0'], '--seeds is 0; it must be at least 1'),
    'size': (['4', '--size', '8'], '--size is 8; it must be at least 32'),
}


@pytest.mark.parametrize('name', BAD)
def test_a_users_error_is_one_sentence(in_process, tmp_path, name):
    words, sentence = BAD[name]
    (tmp_path / 'empty').mkdir()
    code, said = in_process(TOOL, *words)
    assert code == 2
    assert said.startswith('error: ')
    assert said.count('\n') == 1
    assert sentence in said


def test_splits_must_have_the_same_categories(data, in_process):
    content = json.loads((data / 'val/annotations.json').read_text())
    content['categories'].pop()
    (data / 'val/annotations.json').write_text(json.dumps(content))
    code, said = in_process(TOOL, '4', '--data', data)
    assert code == 2
    assert 'has 2 categories and the validation file 1' in said


def test_the_documented_commands_are_the_tools(in_process):
    text = (REPO / 'docs/paper_tables.md').read_text()
    commands = [line for line in text.splitlines() if line.startswith('python ')]
    assert commands
    from tiny_coco import load_tool

    tool = load_tool(TOOL)
    for line in commands:
        words = line.split()
        assert words[:2] == ['python', 'tools/analysis/paper_table.py']
        args = tool.parse_args(words[2:])
        assert args.command == line
        assert tool.chosen_rows(args.table, args.rows)
        assert args.plot is None or (REPO / args.plot).is_file()
