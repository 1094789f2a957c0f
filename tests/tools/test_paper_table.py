"""tools/analysis/paper_table.py: rows, runs that outlive a kill, literal tables of planted results."""

import dataclasses
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from doc_pages import commands_of
from tiny_coco import REPO, environment, load_tool

sys.path.insert(0, str(REPO / 'tools' / 'analysis'))

import atss_ext.cli  # noqa: F401  (before mmdet, as the tool does)

# isort: split
import _paper_runs
from _paper_locks import hold, holder
from _paper_report import Line, markdown, order, plot, put_section
from _paper_rows import TABLES, Scale, row_config
from _paper_runs import code_digest, make_run, perform

from atss_ext.errors import UserError

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

    # At once: what trained for the killed one ends by itself, and is waited for.
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
    page = tmp_path / 'work/table4.md'
    put_section(page, 4, 'a finished table\n')
    code, said = in_process(TOOL, *words)
    assert code == 2
    assert '1 runs failed, and are tried again next time; first log: ' in said
    last = said.splitlines()[-1]
    assert last.startswith('error: table4_k9, seed 0, failed: image ')
    assert 'train_1.png cannot be read (it is no image, or it is damaged)' in last
    assert page.read_text() == '<!-- table 4 -->\na finished table\n<!-- end of table 4 -->\n'
    assert not (tmp_path / 'work/table4.png').exists()


def planned(data, work, *more):
    """The tool, and the runs that it plans: k = 3 and k = 9, a seed each."""
    tool = load_tool(TOOL)
    args = tool.parse_args([*map(str, arguments(data, work)), *more])
    return tool, tool.plan(args, tool.chosen_rows(4, args.rows), tool.find_or_draw(args))


def plant(folder, ap):
    """What a finished run leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {'row': folder.name, 'seed': 0, 'seconds': 30.0, 'AP': ap, 'AP50': 1.5 * ap, 'AP75': ap / 2}
    (folder / 'result.json').write_text(json.dumps(result))
    return result


def test_a_report_without_results_leaves_the_page(data, in_process, tmp_path):
    work = tmp_path / 'work'
    for run, ap in zip(planned(data, work)[1], (12.0, 34.0), strict=True):
        plant(run.folder, ap)
    page, picture = work / 'table4.md', work / 'table4.png'
    code, said = in_process(TOOL, *arguments(data, work), '--report')
    assert code == 0, said
    assert '| k = 9 | 39.3 | 34.0 | 51.0 | 1 |' in page.read_text()
    before = page.read_bytes(), picture.read_bytes()
    code, said = in_process(TOOL, *arguments(data, work), '--report', '--epochs', '7')
    assert code == 2
    assert said == (
        f'error: no run of table 4 with these options is finished, so {page} is left as it is; correct the '
        'options, or train by the same command without --report\n'
    )
    assert (page.read_bytes(), picture.read_bytes()) == before


HOLDER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from _paper_locks import hold
with hold(Path(sys.argv[2])):
    print('held', flush=True)
    words = sys.stdin.readline()
    if words.strip():
        Path(sys.argv[3], 'result.json').write_text(words)
"""


@pytest.fixture
def holding():
    """Let another process hold the lock of a run until it gets a line, the result it leaves."""
    started = []

    def start(run):
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / 'epoch_1.pth').write_text('at work')
        command = [sys.executable, '-c', HOLDER, REPO / 'tools/analysis', run.lock, run.folder]
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == 'held\n'
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_run_of_another_command_is_waited_for_and_its_result_taken(data, tmp_path, holding):
    _, (run, _) = planned(data, tmp_path / 'work')
    process = holding(run)
    assert holder(run.lock) == str(process.pid)
    words = '{"AP": 1.0, "AP50": 2.0, "AP75": 0.5, "seconds": 9, "row": "table4_k3", "seed": 0}'
    later = threading.Timer(0.5, process.communicate, [f'{words}\n'])
    later.start()
    assert perform(run) == json.loads(words)
    later.join()
    assert (run.folder / 'epoch_1.pth').read_text() == 'at work'
    assert holder(run.lock) is None


def test_a_killed_command_holds_nothing_but_by_its_child(data, tmp_path, holding):
    _, (run, other) = planned(data, tmp_path / 'work')
    process = holding(run)
    process.kill()
    process.wait()
    assert run.lock.read_text() == str(process.pid)  # what is written there does not count
    assert holder(run.lock) is None
    assert holder(other.lock) is None
    child = multiprocessing.get_context('spawn').Process(target=time.sleep, args=(600,))
    with hold(run.lock) as held:
        child.held = held  # a process takes all of itself along
        child.start()
    try:
        assert holder(run.lock) is not None
    finally:
        child.kill()
        child.join()
    assert holder(run.lock) is None


def test_what_another_command_trains_comes_last(data, tmp_path, holding, capsys, monkeypatch):
    tool, runs = planned(data, tmp_path / 'work')
    process = holding(runs[0])
    made = []
    monkeypatch.setattr(tool, 'perform', lambda run: made.append(run.row) or plant(run.folder, 7.0))
    assert tool.make_runs(runs) == []
    assert made == ['table4_k9', 'table4_k3']
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (f'[1/2] table4_k3, seed 0: process {process.pid} trains it, so the others go first')
    assert lines[3] == f'[1/2] table4_k3, seed 0: waits for process {process.pid}'


def test_fresh_removes_no_run_at_work(data, tmp_path, holding, in_process):
    work = tmp_path / 'work'
    _, runs = planned(data, work)
    plant(runs[0].folder, 12.0)
    process = holding(runs[1])
    code, said = in_process(TOOL, *arguments(data, work), '--fresh')
    assert code == 2
    assert said == (
        f'error: table4_k9, seed 0, is being trained by process {process.pid}; wait for its end, or leave '
        '--fresh away\n'
    )
    assert (runs[1].folder / 'epoch_1.pth').is_file()
    assert runs[0].result['AP'] == 12.0


def test_fresh_removes_a_run_of_two_rows(data, tmp_path):
    tool, runs = planned(data, tmp_path / 'work')
    plant(runs[0].folder, 12.0)
    tool.remove([runs[0], dataclasses.replace(runs[0], row='another name')])
    assert not runs[0].folder.exists()
    assert holder(runs[0].lock) is None


def test_runs_of_other_code_count_when_they_are_asked_for(data, tmp_path, in_process, capfd):
    work = tmp_path / 'work'
    tool, runs = planned(data, work)
    contents = [run.folder.name.partition('-')[0] for run in runs]
    plant(work / 'runs' / contents[0], 12.0)  # from before the code was part of the name
    plant(work / 'runs' / f'{contents[1]}-0a1b2c3d', 34.0)
    assert tool.with_old(runs, False) == runs
    assert [run.result for run in runs] == [None, None]
    sentence = '2 finished runs are of other code than that of now, and are '
    assert capfd.readouterr().out == f'{sentence}trained anew; --keep-old takes them as they are\n'
    assert [run.result['AP'] for run in tool.with_old(runs, True)] == [12.0, 34.0]
    assert capfd.readouterr().out == f'{sentence}taken as they are\n'

    code, said = in_process(TOOL, *arguments(data, work), '--report')
    assert (code, (work / 'table4.md').exists()) == (2, False), said
    code, said = in_process(TOOL, *arguments(data, work), '--keep-old')
    assert code == 0, said
    text = (work / 'table4.md').read_text()
    assert '| k = 3 | 38.0 | 12.0 | 18.0 | 1 |' in text
    assert '| k = 9 | 39.3 | 34.0 | 51.0 | 1 |' in text
    assert '--keep-old\n' in text  # the command that makes the same table again
    plant(runs[0].folder, 50.0)  # by the code of now
    assert [run.result['AP'] for run in tool.with_old(runs, True)] == [50.0, 34.0]


def test_other_heads_assigners_or_ops_are_other_code(tmp_path, monkeypatch):
    package = tmp_path / 'one'
    for place in ('models/head.py', 'assigners/atss.py', 'ops/ious.py', 'csrc/cuda/ious.cu', 'cli/words.py'):
        (package / place).parent.mkdir(parents=True)
        (package / place).write_text('a = 1\n')
    digests = [code_digest(shutil.copytree(package, tmp_path / 'same'))]
    for place in ('models/head.py', 'assigners/atss.py', 'ops/ious.py', 'csrc/cuda/ious.cu'):
        changed = shutil.copytree(package, tmp_path / Path(place).parts[0])
        (changed / place).write_text('a = 2\n')
        digests.append(code_digest(changed))
    assert len({code_digest(package), *digests}) == 5
    assert digests[0] == code_digest(package)
    other = shutil.copytree(package, tmp_path / 'other')
    (other / 'cli/words.py').write_text('a = 2\n')
    assert code_digest(other) == code_digest(package)

    names = []
    for code in ('aaaaaaaa', 'bbbbbbbb'):
        monkeypatch.setattr(_paper_runs, 'code_digest', lambda package, code=code: f'{code}')
        names.append(make_run('table4_k9', small('table4_k9'), 0, 'd', Path('runs')).folder.name)
    assert names[0].removesuffix('-aaaaaaaa') == names[1].removesuffix('-bbbbbbbb') != names[0]


def test_code_that_was_changed_meanwhile_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(_paper_runs, 'code_digest', lambda package: '0a1b2c3d')
    run = make_run('table4_k9', small('table4_k9'), 0, 'd', tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match='the code of atss_ext was changed while the command ran; start'):
        _paper_runs._train(run)


WHOLE = {'row': 'k9', 'seed': 0, 'seconds': 3.5, 'AP': 1, 'AP50': 2.0, 'AP75': 0.5}
DAMAGED = {
    'nothing': '{}',
    'list': '[]',
    'number': '7',
    'cut': '{"AP": 1',
    'text': json.dumps({**WHOLE, 'AP': 'high'}),
    'nan': json.dumps({**WHOLE, 'AP50': float('nan')}),
    'no time': json.dumps({key: WHOLE[key] for key in WHOLE if key != 'seconds'}),
}


@pytest.mark.parametrize('name', DAMAGED)
def test_a_damaged_result_is_none(tmp_path, name):
    run = make_run('table4_k9', small('table4_k9'), 0, 'd', tmp_path)
    run.folder.mkdir()
    (run.folder / 'result.json').write_text(json.dumps(WHOLE))
    assert run.result == WHOLE
    (run.folder / 'result.json').write_text(DAMAGED[name])
    assert run.result is None


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
    'out': (['4', '--out', 'empty'], '--out empty is a folder; name a file'),
    'plot': (['4', '--plot', 'file/x.png'], '--plot file/x.png cannot be written, because '),
    'one file': (['4', '--out', 'x', '--plot', 'x'], '--plot x is written by --out as well'),
    'work dir': (['4', '--work-dir', 'file'], 'file/table4.md cannot be written, because '),
}


@pytest.mark.parametrize('name', BAD)
def test_a_users_error_is_one_sentence(in_process, tmp_path, name):
    words, sentence = BAD[name]
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
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
    commands = commands_of('docs/paper_tables.md')
    assert len(commands) == 2
    tool = load_tool(TOOL)
    for line in commands:
        words = line.split()
        assert words[:2] == ['python', 'tools/analysis/paper_table.py']
        args = tool.parse_args(words[2:])
        assert args.command == line
        assert tool.chosen_rows(args.table, args.rows)
        assert args.plot is None or (REPO / args.plot).is_file()
