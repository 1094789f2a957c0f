"""What the dist_*.sh scripts tell torchrun, by environment, and how they end; all is literal."""

import os
import signal
import socket
from types import SimpleNamespace

import pytest
from ports import free_port
from tiny_coco import load_tool
from torch.distributed.elastic.rendezvous.api import RendezvousClosedError

LAUNCH = load_tool('launch.py')


def options(**environment: str) -> list[str]:
    return LAUNCH.torchrun_options('8', environment)


def test_one_machine_and_several_as_in_mmdet():
    assert options() == [
        '--nnodes=1', '--nproc_per_node=8', '--node_rank=0', '--master_addr=127.0.0.1', '--master_port=29500',
    ]  # fmt: skip
    assert options(NNODES='4', NODE_RANK='3', MASTER_ADDR='10.0.0.1', PORT='1234') == [
        '--nnodes=4', '--nproc_per_node=8', '--node_rank=3', '--master_addr=10.0.0.1', '--master_port=1234',
    ]  # fmt: skip


def test_restarts_on_one_machine_have_a_name_of_their_own():
    *known, run, keeper, address = options(MAX_RESTARTS='3')
    assert known == [
        '--nnodes=1', '--nproc_per_node=8', '--max_restarts=3', '--rdzv_backend=c10d',
        '--rdzv_endpoint=127.0.0.1:29500',
    ]  # fmt: skip
    assert run.startswith('--rdzv_id=')
    assert run not in options(MAX_RESTARTS='3')
    assert (keeper, address) == ('--rdzv_conf=is_host=1', '--local_addr=127.0.0.1')


def test_restarts_on_several_machines():
    shared = {'NNODES': '2:4', 'MASTER_ADDR': '10.0.0.1', 'RUN_ID': 'street', 'MAX_RESTARTS': '2'}
    common = [
        '--nnodes=2:4', '--nproc_per_node=8', '--max_restarts=2', '--rdzv_backend=c10d',
        '--rdzv_endpoint=10.0.0.1:29500', '--rdzv_id=street',
    ]  # fmt: skip
    keeper = ['--rdzv_conf=is_host=1', '--local_addr=10.0.0.1']
    assert options(**shared, NODE_RANK='0') == [*common, *keeper]
    other = ['--rdzv_conf=is_host=0', '--local_addr=10.0.0.2']
    assert options(**shared, NODE_RANK='1', LOCAL_ADDR='10.0.0.2') == [*common, *other]
    assert options(**shared, NODE_RANK='1') == [*common, '--rdzv_conf=is_host=0']
    assert options(**shared) == common  # torchrun goes by host names


def test_several_machines_need_a_name_in_common():
    with pytest.raises(LAUNCH.LaunchError, match='NNODES=2 with restarts needs RUN_ID'):
        options(NNODES='2', MAX_RESTARTS='1')
    assert '--rdzv_id=77' in options(NNODES='2', MAX_RESTARTS='1', SLURM_JOB_ID='77')


@pytest.mark.parametrize('nodes', ['1', '1:1'])
def test_two_commands_of_one_job_are_two_runs(nodes):
    one, other = (options(NNODES=nodes, MAX_RESTARTS='1', SLURM_JOB_ID='77') for _ in range(2))
    ids = [next(word for word in words if word.startswith('--rdzv_id=')) for words in (one, other)]
    assert ids[0] != ids[1]
    assert '--rdzv_id=77' not in ids
    assert '--rdzv_id=own' in options(NNODES=nodes, MAX_RESTARTS='1', RUN_ID='own')


NODES = 'must be a number of machines, such as 2, or a range, such as 2:4'


@pytest.mark.parametrize(
    ('environment', 'sentence'),
    [
        ({'NNODES': 'two'}, f'NNODES=two {NODES}'),
        ({'NNODES': '0'}, f'NNODES=0 {NODES}'),
        ({'NNODES': '4:2'}, f'NNODES=4:2 {NODES}'),
        ({'MAX_RESTARTS': 'x'}, 'MAX_RESTARTS=x must be a whole number of at least 0'),
        ({'MAX_RESTARTS': '-1'}, 'MAX_RESTARTS=-1 must be a whole number of at least 0'),
        ({'PORT': '0'}, 'PORT=0 must be a whole number from 1 to 65535'),
        ({'PORT': '65536'}, 'PORT=65536 must be a whole number from 1 to 65535'),
        ({'NNODES': '2', 'NODE_RANK': '2'}, 'NODE_RANK=2 must be a whole number from 0 to 1'),
    ],
)
def test_a_value_that_makes_no_sense_is_named(environment, sentence):
    with pytest.raises(LAUNCH.LaunchError) as refused:
        options(**environment)
    assert str(refused.value) == sentence


@pytest.mark.parametrize('processes', ['two', '0', '-1', '1.5', ''])
def test_processes_that_make_no_sense_are_named(processes, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['launch.py', processes, 'script.py'])
    assert LAUNCH.run() == 2
    assert capsys.readouterr().err == f'error: GPUS={processes} must be a whole number of at least 1\n'


def test_without_a_script_it_says_how_it_is_used(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['launch.py'])
    assert LAUNCH.run() == 2
    assert capsys.readouterr().err.startswith('error: usage: launch.py PROCESSES SCRIPT')


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Launch one process of a script from this one; torchrun's changes of this process are undone."""
    for name in ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'RUN_ID', 'MAX_RESTARTS'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('PORT', free_port())
    monkeypatch.setattr(LAUNCH.launcher, 'LocalElasticAgent', LAUNCH.LocalElasticAgent)
    handlers = {number: signal.getsignal(number) for number in (1, 2, 3, 15)}
    environment = dict(os.environ)

    def start(script: str, **extra: str) -> int:
        for name, value in extra.items():
            monkeypatch.setenv(name, value)
        path = tmp_path / 'script.py'
        path.write_text(
            f'import os\nimport sys\n\nopen({str(tmp_path / "starts")!r}, "a").write("x")\n{script}'
        )
        return LAUNCH.launch(['1', str(path)])

    yield start
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name in set(os.environ) - set(environment):
        del os.environ[name]


@pytest.mark.parametrize(
    ('ends', 'starts', 'code'),
    [
        ('sys.exit(1)', 3, 1),
        ('os.kill(os.getpid(), 9)', 3, 1),
        ('sys.exit(2)', 1, 2),
        ('sys.exit(int(os.environ["ATSS_FINISHED_CODE"]))', 1, 1),
        ('sys.exit(0)', 1, 0),
    ],
)
def test_only_what_may_go_well_is_started_again(launch, tmp_path, ends, starts, code):
    assert launch(ends, MAX_RESTARTS='2') == code
    assert len((tmp_path / 'starts').read_text()) == starts


@pytest.mark.parametrize('restarts', ['0', '2'])
def test_a_signal_ends_the_run_with_a_sentence(launch, tmp_path, capsys, restarts):
    script = 'import time\n\nos.kill(os.getppid(), 15)\ntime.sleep(60)'
    assert launch(script, MAX_RESTARTS=restarts) == 128 + 15
    assert len((tmp_path / 'starts').read_text()) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        'stopped by SIGTERM; training goes on with --resume, VL-SAM with the same command'
    )


@pytest.mark.parametrize('restarts', ['0', '2'])
def test_a_port_that_is_taken_is_named(launch, tmp_path, restarts):
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        port = str(other.getsockname()[1])
        with pytest.raises(LAUNCH.LaunchError) as refused:
            launch('', PORT=port, MAX_RESTARTS=restarts)
    assert str(refused.value) == f'port {port} is taken, perhaps by another run; choose another by PORT'
    assert not (tmp_path / 'starts').exists()


def test_a_first_machine_that_does_not_answer_is_named():
    where = {'MASTER_ADDR': '10.0.0.1', 'PORT': '1234'}
    assert LAUNCH.no_meeting(TimeoutError('timed out'), where).startswith('10.0.0.1:1234 does not answer')


@pytest.mark.parametrize('restarts', ['0', '2'])
def test_a_machine_that_never_comes_is_a_sentence(launch, tmp_path, monkeypatch, restarts):
    """torchrun waits for minutes, and here for seconds."""

    def impatient(*given) -> list[str]:
        words = [word for word in torchrun_options(*given) if not word.startswith('--rdzv_conf')]
        return [*words, '--rdzv_conf=is_host=1,join_timeout=3,timeout=3']

    torchrun_options = LAUNCH.torchrun_options
    monkeypatch.setattr(LAUNCH, 'torchrun_options', impatient)
    with pytest.raises(LAUNCH.LaunchError, match=r'^the machines of NNODES=2 did not meet \(.+\); start the'):
        launch('', NNODES='2', NODE_RANK='0', RUN_ID='street', MAX_RESTARTS=restarts)
    assert not (tmp_path / 'starts').exists()


def test_every_launch_is_told_from_others(launch, tmp_path):
    """And is the same to what it starts again."""
    seen = tmp_path / 'seen'
    for _ in range(2):
        words = f"open({str(seen)!r}, 'a').write(os.environ['ATSS_LAUNCHER'] + ' ')\nsys.exit(1)"
        assert launch(words, MAX_RESTARTS='1') == 1
    one, again, other, other_again = seen.read_text().split()
    assert (one, other) == (again, other_again)
    assert one != other


def test_a_run_that_another_machine_has_ended(launch, monkeypatch, capsys):
    def closed(options: list[str]) -> None:
        raise RendezvousClosedError

    monkeypatch.setattr(LAUNCH, 'main', closed)
    assert launch('') == 1
    assert capsys.readouterr().err == 'error: another machine has ended the run; its own message says why\n'


@pytest.mark.parametrize(
    ('codes', 'code'), [([-9, 1], 1), ([1, -15], 1), ([5, 1], 5), ([1, 2], 2), ([3, -15], 1)]
)
def test_the_exit_code_is_that_of_the_cause(codes, code):
    """In the order of their deaths, which is not that of their ranks."""
    count = len(codes)
    failures = {
        count - place: SimpleNamespace(exitcode=one, timestamp=place) for place, one in enumerate(codes)
    }
    assert LAUNCH.exit_code(failures) == code
