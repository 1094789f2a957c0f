"""Timing two ways to do the same work against each other, in one process."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

Call = Callable[[], object]

WARM_UP = 3
MIN_ROUNDS = 5
# Calls of the faster side a round; more would only wait for the slower one's median to settle.
MAX_BLOCK = 50


@dataclass
class Side:
    """One way to do the work, and how long each of its calls took."""

    call: Call
    device: str
    seconds: list[float] = field(default_factory=list)

    def run(self, calls: int = 1) -> None:
        """Time ``calls`` calls one by one; each ends when its device has nothing left to do."""
        for _ in range(calls):
            _wait(self.device)
            start = time.perf_counter()
            self.call()
            _wait(self.device)
            self.seconds.append(time.perf_counter() - start)

    def warm_up(self) -> float:
        """Make some calls that do not count; returns the seconds of the last."""
        self.run(WARM_UP)
        last = self.seconds[-1]
        self.seconds.clear()
        return last

    @property
    def median_ms(self) -> float:
        """Of the calls that count."""
        return statistics.median(self.seconds) * 1e3


def _wait(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def time_pair(ours: Call, theirs: Call, device: str, seconds: float) -> tuple[float, float]:
    """Median milliseconds of a call of each side.

    Both sides run in this process, on the same inputs, in turns that swap their order, so that a busy
    machine slows both. A turn of the faster side is a block of calls that lasts about as long as one call
    of the slower one: either side finds its caches as it left them itself but for the first call of a turn.

    Args:
        ours: one call of our side.
        theirs: one call of the other.
        device: 'cpu' or 'cuda'; on the latter each call is waited for.
        seconds: how long to go on; a handful of turns are always made.
    """
    sides = [Side(ours, device), Side(theirs, device)]
    once = [side.warm_up() for side in sides]
    blocks = [max(1, min(MAX_BLOCK, int(max(once) / max(own, 1e-9)))) for own in once]
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < MIN_ROUNDS or time.perf_counter() < deadline:
        for index in (0, 1) if rounds % 2 else (1, 0):
            sides[index].run(blocks[index])
        rounds += 1
    return sides[0].median_ms, sides[1].median_ms


def time_alone(call: Call, device: str, seconds: float) -> float:
    """Median milliseconds of a call that has no opponent."""
    side = Side(call, device)
    side.warm_up()
    deadline = time.perf_counter() + seconds
    while len(side.seconds) < MIN_ROUNDS or time.perf_counter() < deadline:
        side.run()
    return side.median_ms


def graph_ms(call: Call, calls: int, seconds: float) -> float:
    """Median milliseconds of a call on the GPU alone, of ``calls`` captured into one CUDA graph.

    Kernels of microseconds cannot be timed by launching them from Python: the launches take longer.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(times) < MIN_ROUNDS + WARM_UP or time.perf_counter() < deadline:
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / calls)
    return statistics.median(times[WARM_UP:])
