"""torchrun for the dist_*.sh scripts: options from environment variables, failures without its traceback.

    python tools/launch.py PROCESSES SCRIPT [arguments of the script]

NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1) and PORT (29500) as for mmdet's scripts. MAX_RESTARTS (0)
starts all processes again, that often, when one has died; NNODES=2:4 takes machines that come and go as well.
Then RUN_ID names the run on all its machines, and LOCAL_ADDR is the address of this one, where its name will
not do. What would fail again in the same way is not started again: a user's error, and images that failed.

torchrun itself ends with a traceback of its own, 40 lines below the sentence of the process that
failed, and with exit code 1 whatever the process returned.
"""

import os
import re
import sys
import uuid
from collections.abc import Mapping
from typing import Any

from torch.distributed import DistError, DistNetworkError
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
)
from torch.distributed.launcher import api as launcher
from torch.distributed.run import main

USER_ERROR = 2
# A script may end with 1 after a bug, or because it came to its end and something in it failed. The second it
# says with this code instead, which the variable tells it (atss_ext/cli/restarts.py).
FINISHED = 3
FINISHED_VARIABLE = 'ATSS_FINISHED_CODE'
# A word of this command alone, by which processes that it starts again know that they are of the same run.
LAUNCHER_VARIABLE = 'ATSS_LAUNCHER'


class LaunchError(Exception):
    """Something that whoever starts it can mend; the message is one sentence."""


class Agent(LocalElasticAgent):
    """torchrun's watcher of the processes, which starts nothing again that would fail in the same way."""

    def _monitor_workers(self, worker_group: Any) -> Any:
        result = super()._monitor_workers(worker_group)
        if any(failure.exitcode in (USER_ERROR, FINISHED) for failure in result.failures.values()):
            self._remaining_restarts = 0
        return result


def whole_number(name: str, value: str, least: int, most: int | None = None) -> int:
    """Read one.

    Args:
        name: of the variable or argument, for the message.
        value: what was given.
        least: smallest that is allowed.
        most: largest that is allowed.

    Raises:
        LaunchError: it is none, or out of range.
    """
    number = int(value) if re.fullmatch('[0-9]{1,9}', value) else -1
    if number < least or (most is not None and number > most):
        allowed = f'from {least} to {most}' if most is not None else f'of at least {least}'
        raise LaunchError(f'{name}={value} must be a whole number {allowed}')
    return number


def most_nodes(nodes: str) -> int:
    """How many machines NNODES allows, as a number or as least:most.

    Raises:
        LaunchError: it is neither.
    """
    bounds = re.fullmatch('([0-9]{1,9})(?::([0-9]{1,9}))?', nodes)
    least, most = (int(bounds[1]), int(bounds[2] or bounds[1])) if bounds else (0, 0)
    if not 1 <= least <= most:
        raise LaunchError(f'NNODES={nodes} must be a number of machines, such as 2, or a range, such as 2:4')
    return most


def torchrun_options(processes: str, environment: Mapping[str, str]) -> list[str]:
    """What torchrun is told.

    Args:
        processes: how many on this machine.
        environment: variables of this process.

    Raises:
        LaunchError: a value that makes no sense, or restarts on several machines without RUN_ID.
    """
    nodes = environment.get('NNODES', '1')
    address, port = environment.get('MASTER_ADDR', '127.0.0.1'), environment.get('PORT', '29500')
    restarts, rank = environment.get('MAX_RESTARTS', '0'), environment.get('NODE_RANK', '0')
    whole_number('GPUS', processes, 1)
    whole_number('NODE_RANK', rank, 0, most_nodes(nodes) - 1)
    whole_number('PORT', port, 1, 65535)
    options = [f'--nnodes={nodes}', f'--nproc_per_node={processes}']
    if whole_number('MAX_RESTARTS', restarts, 0) == 0 and ':' not in nodes:
        return [*options, f'--node_rank={rank}', f'--master_addr={address}', f'--master_port={port}']
    alone = most_nodes(nodes) == 1
    # Several commands of one job would be one run: alone, each has an id of its own.
    run = environment.get('RUN_ID') or (None if alone else environment.get('SLURM_JOB_ID'))
    if not run and not alone:
        raise LaunchError(
            f'NNODES={nodes} with restarts needs RUN_ID, a word of your choice: the same on all '
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


def exit_code(failures: Mapping[int, ProcessFailure]) -> int:
    """What to end with after processes failed.

    Args:
        failures: by rank.
    """
    codes = [failure.exitcode for failure in sorted(failures.values(), key=lambda one: one.timestamp)]
    if USER_ERROR in codes:  # the others died of it
        return USER_ERROR
    # A negative one is a signal; who came to its end says 1 to whoever asked for the run.
    return codes[0] if codes[0] > 0 and codes[0] != FINISHED else 1


def no_meeting(error: BaseException, environment: Mapping[str, str]) -> str:
    """The sentence for processes that find no common ground.

    Args:
        error: of torch.
        environment: variables of this process.
    """
    address, port = environment.get('MASTER_ADDR', '127.0.0.1'), environment.get('PORT', '29500')
    if 'EADDRINUSE' in f'{error} {error.__cause__}':
        return f'port {port} is taken, perhaps by another run; choose another by PORT'
    return (
        f'{address}:{port} does not answer, where the machine with NODE_RANK=0 should; look whether the run '
        'is still there, and whether MASTER_ADDR and PORT are the same on all machines'
    )


def launch(arguments: list[str]) -> int:
    """Start the processes and wait for them.

    Args:
        arguments: of the command line.

    Returns:
        the exit code: 0; 128 and its number for a signal; else that of the first process that failed.

    Raises:
        LaunchError: a user's error.
    """
    if len(arguments) < 2:
        raise LaunchError('usage: launch.py PROCESSES SCRIPT [arguments of the script]')
    processes, *script = arguments
    options = torchrun_options(processes, os.environ)
    # In torchrun's own store, processes that start again find the addresses of the dead (seen with gloo on
    # torch 2.14); told not to share that one, each start makes a new one.
    os.environ.setdefault('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')
    os.environ[FINISHED_VARIABLE] = str(FINISHED)
    os.environ[LAUNCHER_VARIABLE] = uuid.uuid4().hex
    launcher.LocalElasticAgent = Agent  # torchrun has no option for it
    try:
        main([*options, *script])
    except ChildFailedError as error:
        return exit_code(error.failures)
    except SignalException as error:
        print(
            f'stopped by {error.sigval.name}; training goes on with --resume, VL-SAM with the same command',
            file=sys.stderr,
        )
        return 128 + error.sigval
    except RendezvousClosedError:
        print('error: another machine has ended the run; its own message says why', file=sys.stderr)
        return 1
    except (RendezvousConnectionError, DistNetworkError) as error:
        raise LaunchError(no_meeting(error, os.environ)) from error
    except (RendezvousError, DistError) as error:
        nodes = os.environ.get('NNODES', '1')
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise LaunchError(
            f'the machines of NNODES={nodes} did not meet ({why}); start the command '
            'on all of them, with the same MASTER_ADDR, PORT and RUN_ID, and another NODE_RANK on each'
        ) from error
    return 0


def run() -> int:
    """Run the command; a user's error is one sentence on stderr."""
    try:
        return launch(sys.argv[1:])
    except LaunchError as error:
        print(f'error: {error}', file=sys.stderr)
        return USER_ERROR


if __name__ == '__main__':
    sys.exit(run())
