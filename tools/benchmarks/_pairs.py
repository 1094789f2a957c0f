"""Timing ways to do the same work against each other, in one process.

A call that follows another of its own side finds its data and code in the caches: that is the figure of the
tables. What a call costs that follows one of the other side is timed too, as the cold figure.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

Call = Callable[[], object]

WARM_UP = 3
MIN_ROUNDS = 5
# Warm calls a turn; more would only wait for the slower side's median to settle.
MAX_BLOCK = 50


@dataclass(frozen=True)
class Timing:
    """How long a call of one side takes, in milliseconds.

    Attributes:
        ms: median of the calls that followed another of the same side.
        spread: first and third quartile of the same calls.
        cold_ms: median of the calls that followed one of the other side; None where there is none.
    """

    ms: float
    spread: tuple[float, float]
    cold_ms: float | None = None


@dataclass
class Side:
    """One way to do the work, and how long each of its calls took."""

    call: Call
    device: str
    block: int = 1
    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)

    def once(self) -> float:
        """Seconds of a call, which ends when its device has nothing left to do."""
        _wait(self.device)
        start = time.perf_counter()
        self.call()
        _wait(self.device)
        return time.perf_counter() - start

    def warm_up(self) -> float:
        """Make some calls that do not count; returns the seconds of the last."""
        return [self.once() for _ in range(WARM_UP)][-1]

    def turn(self) -> None:
        """A cold call, then a block of warm ones."""
        self.cold.append(self.once())
        self.warm += [self.once() for _ in range(self.block)]

    @property
    def timing(self) -> Timing:
        """Of the calls that count."""
        first, median, third = (quartile * 1e3 for quartile in statistics.quantiles(self.warm, n=4))
        return Timing(median, (first, third), statistics.median(self.cold) * 1e3 if self.cold else None)


def _wait(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def time_against(
    theirs: Call, ours: Sequence[Call], device: str, seconds: float
) -> tuple[Timing, list[Timing]]:
    """Times of an opponent and of each of our ways to do its work.

    All run in this process, on the same inputs, in turns, so that a busy machine slows all; before a turn of
    ours the opponent has one. A turn is one call that finds caches and threads as the other side left them
    (cold), then a block of calls that find them as this side left them (warm). The block of the slowest side
    is one call; that of a faster one lasts about as long, of at most ``MAX_BLOCK`` calls.

    Args:
        theirs: one call of the opponent.
        ours: one call of each way.
        device: 'cpu' or 'cuda'; on the latter each call is waited for.
        seconds: how long to go on; a handful of rounds are always made.
    """
    other, sides = Side(theirs, device), [Side(call, device) for call in ours]
    once = {id(side): side.warm_up() for side in (other, *sides)}
    for side in (other, *sides):
        side.block = max(1, min(MAX_BLOCK, int(max(once.values()) / max(once[id(side)], 1e-9))))
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < MIN_ROUNDS or time.perf_counter() < deadline:
        for side in sides if rounds % 2 else reversed(sides):
            other.turn()
            side.turn()
        rounds += 1
    return other.timing, [side.timing for side in sides]


def time_alone(call: Call, device: str, seconds: float) -> float:
    """Median milliseconds of a call that has no opponent, all calls warm."""
    return spread_alone(call, device, seconds).ms


def spread_alone(call: Call, device: str, seconds: float) -> Timing:
    """The same, with its quartiles."""
    side = Side(call, device)
    side.warm_up()
    deadline = time.perf_counter() + seconds
    while len(side.warm) < MIN_ROUNDS or time.perf_counter() < deadline:
        side.warm.append(side.once())
    return side.timing


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
