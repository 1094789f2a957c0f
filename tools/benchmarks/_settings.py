"""What every benchmark is told: where it runs, how long, on inputs of which size."""

import importlib.util
from dataclasses import dataclass

import torch

# ATSS's k; mmdet's configs use the same.
TOPK = 9


@dataclass(frozen=True)
class Settings:
    """Of one run.

    Attributes:
        device: 'cpu' or 'cuda'.
        threads: of torch on the CPU, for both sides of a pair.
        quick: tiny inputs and few calls, to try the tools; the figures mean nothing.
        times_only: what has an opponent is timed, and nothing else done.
    """

    device: str = 'cpu'
    threads: int = 2
    quick: bool = False
    times_only: bool = False

    @property
    def on_cpu(self) -> bool:
        """Whether the targets set for the CPU apply."""
        return self.device == 'cpu'

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of the image the priors belong to."""
        return (160, 224) if self.quick else (800, 1344)

    @property
    def seconds(self) -> float:
        """How long we and an opponent are timed."""
        if self.quick:
            return 0.05
        return 6.0 if self.on_cpu else 2.0

    def count(self, full: int) -> int:
        """A number of gts or images, smaller in a quick run."""
        return -(-full // 20) if self.quick else full

    def apply(self) -> None:
        """Set torch's threads."""
        torch.set_num_threads(self.threads)


def has_mmdet() -> bool:
    """Whether there is an mmdet to compare with."""
    return all(importlib.util.find_spec(name) for name in ('mmdet', 'mmengine', 'mmcv'))
