"""Several processes over one folder of images: who looks at which, and who writes what all have found."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed as dist

from atss_ext.cli.runner import set_rank_variables
from atss_ext.errors import UserError

Item = TypeVar('Item')
# Nobody waits in vain: the launcher ends all processes when one dies, and images may take hours.
_PATIENCE = timedelta(days=365)


@dataclass(frozen=True)
class Processes:
    """Those that share a run; by default this one alone.

    Attributes:
        rank: of this process, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes for all."""
        return self.rank == 0

    @property
    def title(self) -> str:
        """What a line of progress begins with."""
        return f'process {self.rank + 1} of {self.count}: ' if self.count > 1 else ''

    def share(self, items: Sequence[Item]) -> list[Item]:
        """The part of this process: each item belongs to one process, and no part is longer by two."""
        return list(items[self.rank :: self.count])

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    @contextlib.contextmanager
    def one_by_one(self) -> Iterator[None]:
        """The first process does the block alone, then all others."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def check_same(self, names: Sequence[str]) -> None:
        """Make sure that all processes, perhaps on several machines, share the same list.

        Raises:
            UserError: they do not.
        """
        if self.count == 1:
            return
        digest = hashlib.sha256('\0'.join(names).encode('utf-8', 'surrogatepass')).digest()
        mine = torch.tensor(list(digest))
        firsts = mine.clone()
        dist.broadcast(firsts, 0)
        differs = torch.tensor(int(not torch.equal(mine, firsts)))
        dist.all_reduce(differs)
        if differs:
            raise UserError(
                f'{int(differs)} of {self.count} processes see other images in the input than the first; '
                'give all machines the same folder, and leave it as it is during the run'
            )

    def total(self, number: int) -> int:
        """The sum of a number over all processes."""
        if self.count == 1:
            return number
        whole = torch.tensor(number)
        dist.all_reduce(whole)
        return int(whole)


def join(launcher: str) -> Processes:
    """Join the processes that a launcher started, each with the GPU of its number.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        UserError: the launcher's environment is incomplete.
    """
    if launcher == 'none':
        return Processes()
    set_rank_variables(launcher)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    if not dist.is_initialized():
        # A few words at the beginning and at the end: gloo does that with and without GPUs.
        dist.init_process_group('gloo', timeout=_PATIENCE)
    return Processes(dist.get_rank(), dist.get_world_size())
