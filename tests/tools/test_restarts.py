"""Which start of processes goes on with which run, and who says so for all of them."""

import json
import os
from pathlib import Path

import pytest
from ports import free_port
from torch import distributed as dist
from warm import spawn_warm

from atss_ext.cli import UserError
from atss_ext.cli.open_ended import Processes
from atss_ext.cli.restarts import continues, failures_code, may_start_again


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start the only process of a run below a launcher; returns whether it goes on."""

    def begin(run: str, launcher: str = 'one') -> bool:
        monkeypatch.setenv('RANK', '0')
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', run)
        monkeypatch.setenv('ATSS_LAUNCHER', launcher)
        return continues(tmp_path)

    return begin


def save(folder: Path, name: str, number: int = 0) -> None:
    """As mmengine does after an epoch, at a time that the number tells from others."""
    (folder / name).touch()
    (folder / 'last_checkpoint').write_text(str(folder / name))
    os.utime(folder / 'last_checkpoint', ns=(number, number))


def test_without_such_a_launcher_nothing_goes_on(tmp_path, start):
    save(tmp_path, 'epoch_1.pth')
    assert not start('none')
    assert not may_start_again()
    assert not (tmp_path / '.launch.json').exists()


def test_only_a_checkpoint_of_this_run_is_gone_on_from(tmp_path, start):
    save(tmp_path, 'epoch_1.pth', 1)
    assert not start('first')  # an earlier run's
    assert may_start_again()
    assert not start('first')  # died before it wrote one of its own
    save(tmp_path, 'epoch_1.pth', 2)  # of the same name, written later
    assert start('first')
    assert start('first')
    assert not start('second')
    save(tmp_path, 'epoch_2.pth', 3)
    assert start('second')


def test_a_name_that_is_used_again_is_that_of_another_run(tmp_path, start):
    """Whether the earlier run came to its end or not."""
    assert not start('street', 'one')
    save(tmp_path, 'epoch_1.pth', 1)
    assert start('street', 'one')
    assert not start('street', 'two')
    assert not start('street', 'two')
    save(tmp_path, 'epoch_1.pth', 2)
    assert start('street', 'two')
    assert not start('street', 'one')


def test_a_checkpoint_that_is_gone_is_not_gone_on_from(tmp_path, start):
    """mmengine removes the only one that it keeps before it writes the next."""
    assert not start('street')
    save(tmp_path, 'epoch_1.pth')
    (tmp_path / 'epoch_1.pth').unlink()
    assert not start('street')


@pytest.mark.parametrize('content', ['', '[]', '{"run": "street"}', '{"run": "street", "launchers": 1}'])
def test_a_damaged_note_is_that_of_no_run(tmp_path, start, content):
    save(tmp_path, 'epoch_1.pth')
    (tmp_path / '.launch.json').write_text(content)
    assert not start('street')


# What the launchers of the two machines are, start after start, and whether both go on.
STARTS = [
    (('a', 'b'), False),
    (('a', 'b'), True),
    (('c', 'b'), True),  # the first machine was lost, and another came
    (('c', 'd'), True),
    (('a', 'e'), True),  # a machine that was there before
    (('f', 'g'), False),
    (('g', 'f'), True),
]


def _machine(rank: int, folder: str, port: str) -> None:
    os.environ |= {
        'RANK': str(rank), 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port,
        'TORCHELASTIC_RUN_ID': 'street',
    }  # fmt: skip
    dist.init_process_group('gloo')
    answers = []
    for number, (launchers, _) in enumerate(STARTS, 1):
        os.environ['ATSS_LAUNCHER'] = launchers[rank]
        # What the second process sees of the folder changes nothing.
        answers.append(continues(folder if rank == 0 else f'{folder}/elsewhere'))
        dist.barrier()
        if rank == 0:
            save(Path(folder), 'epoch_1.pth', number)
    refusals = []
    for names in (['1.png', '2.png'], ['1.png', f'{rank}.png']):
        try:
            Processes(rank, 2).check_same(names)
        except UserError as error:
            refusals.append(str(error))
    Path(folder, f'answers_{rank}.json').write_text(json.dumps([answers, refusals]))
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def machines(tmp_path_factory) -> list:
    """What two joined processes say."""
    folder = tmp_path_factory.mktemp('machines')
    spawn_warm(_machine, args=(str(folder), free_port()), nprocs=2)
    return [json.loads((folder / f'answers_{rank}.json').read_text()) for rank in range(2)]


def test_a_run_is_the_same_while_one_of_its_launchers_is_there(machines):
    for answers, _ in machines:
        assert answers == [goes_on for _, goes_on in STARTS]


def test_processes_that_see_other_images_refuse_all_alike(machines):
    for _, refusals in machines:
        assert refusals == [
            '1 of 2 processes see other images in the input than the first; give all machines the same '
            'folder, and leave it as it is during the run'
        ]


def test_the_launcher_chooses_the_code_of_a_run_with_failures(monkeypatch):
    monkeypatch.delenv('ATSS_FINISHED_CODE', raising=False)
    assert failures_code() == 1
    monkeypatch.setenv('ATSS_FINISHED_CODE', '3')
    assert failures_code() == 3
