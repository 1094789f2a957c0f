"""torchrun for the dist_*.sh scripts: options from environment variables, failures without its traceback.

    python tools/launch.py PROCESSES SCRIPT [arguments of the script]

NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1) and PORT (29500) as for mmdet's scripts. MAX_RESTARTS (0)
starts all processes again, that often, when one has died; NNODES=2:4 takes machines that come and go as well.
Then RUN_ID names the run on all its machines, and LOCAL_ADDR is the address of this one, where its name will
not do.

torchrun itself ends with a traceback of its own, 40 lines below the sentence of the process that
failed, and with exit code 1 whatever the process returned.
"""

import os
import sys
import uuid
from collections.abc import Mapping

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def torchrun_options(processes: str, environment: Mapping[str, str]) -> list[str]:
    """What torchrun is told.

    Args:
        processes: how many on this machine.
        environment: variables of this process.
    """
    nodes = environment.get('NNODES', '1')
    address, port = environment.get('MASTER_ADDR', '127.0.0.1'), environment.get('PORT', '29500')
    options = [f'--nnodes={nodes}', f'--nproc_per_node={processes}']
    restarts = environment.get('MAX_RESTARTS', '0')
    if restarts == '0' and ':' not in nodes:
        rank = environment.get('NODE_RANK', '0')
        return [*options, f'--node_rank={rank}', f'--master_addr={address}', f'--master_port={port}']
    alone = nodes == '1'
    run = environment.get('RUN_ID') or environment.get('SLURM_JOB_ID')
    if not run and not alone:
        sys.exit(
            f'error: NNODES={nodes} with restarts needs RUN_ID, a word of your choice: the same on all '
            'machines, another for every run'
        )
    # One machine keeps the list of all; torchrun knows it by its host name, which may not be the address.
    keeper = alone or environment.get('NODE_RANK') == '0'
    told = alone or 'NODE_RANK' in environment
    own = environment.get('LOCAL_ADDR') or (address if keeper else '')
    return [
        *options,
        f'--max_restarts={restarts}',
        '--rdzv_backend=c10d',
        f'--rdzv_endpoint={address}:{port}',
        f'--rdzv_id={run or uuid.uuid4().hex}',
        *([f'--rdzv_conf=is_host={int(keeper)}'] if told else []),
        *([f'--local_addr={own}'] if own else []),
    ]


def run() -> None:
    """Start the processes and wait for them; ends with the exit code of the first that failed."""
    processes, *script = sys.argv[1:]
    # In torchrun's own store, processes that start again find the addresses of the dead (seen with gloo on
    # torch 2.14); told not to share that one, each start makes a new one.
    os.environ.setdefault('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')
    try:
        main([*torchrun_options(processes, os.environ), *script])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # A negative one is a signal.
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)


if __name__ == '__main__':
    run()
