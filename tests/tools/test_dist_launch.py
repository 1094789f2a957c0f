"""What the dist_*.sh scripts tell torchrun, by environment; the lists are literal."""

import pytest
from tiny_coco import load_tool

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
    with pytest.raises(SystemExit, match='NNODES=2 with restarts needs RUN_ID'):
        options(NNODES='2', MAX_RESTARTS='1')
    assert '--rdzv_id=77' in options(NNODES='2', MAX_RESTARTS='1', SLURM_JOB_ID='77')
