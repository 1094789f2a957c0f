"""Time and peak memory of one way to get rows of the attention flow, in a process of its own.

As a command: takes a request as one JSON object (see :class:`Request`) and prints a list, an entry a case.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _memory import MALLOC, _host_peak

TIMEOUT_S = 3600
OURS, PYTORCH = 'ours', 'ours, PyTorch alone'
LITERAL = 'literal, float64'
SIDES = (OURS, PYTORCH, LITERAL, 'literal, float32', 'tuned, float64', 'tuned, float32')


@dataclass(frozen=True)
class Case:
    """The sizes of a sequence's attention.

    Attributes:
        tokens: N.
        layers: L.
        heads: H, each with keys of its own.
        depth: D.
        objects: O.
    """

    tokens: int = 1500
    layers: int = 32
    heads: int = 32
    depth: int = 128
    objects: int = 4


@dataclass(frozen=True)
class Request:
    """What a process measures.

    Attributes:
        side: one of SIDES.
        cases: one after the other.
        what: 'time', 'memory' or both.
        threads: of torch.
        calls: timed, for each case.
        save: file for the rows of the last case.
    """

    side: str
    cases: list[Case]
    what: list[str]
    threads: int = 2
    calls: int = 1
    save: str | None = None


def measure(request: Request) -> list[dict[str, Any]]:
    """Results of a process of its own, ``seconds`` of every call and ``mb`` (10^6 bytes) a case."""
    environment = dict(os.environ)
    if request.what == ['memory']:  # what a user has would keep freed memory
        environment |= MALLOC
    command = [sys.executable, '-W', 'ignore', str(Path(__file__).resolve()), json.dumps(asdict(request))]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f'the process that measures {request.side} failed:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def make_call(side: str, case: Case) -> Callable[[], torch.Tensor]:
    """The work on random q and k; objects are the last tokens, as those of an answer are."""
    from _attention_literal import literal_rows, tuned_rows

    from atss_ext.ops import native
    from atss_ext.vlsam.attention import attention_rows
    from atss_ext.vlsam.protocols import QueryKey

    draw = torch.Generator().manual_seed(0)
    shape = case.heads, case.tokens, case.depth
    layers = [
        QueryKey(torch.randn(shape, generator=draw), torch.randn(shape, generator=draw), case.depth**-0.5)
        for _ in range(case.layers)
    ]
    weights = torch.eye(case.tokens)[-case.objects :]
    if side in (OURS, PYTORCH):
        if side == PYTORCH:
            native.DEVICES = frozenset()
        elif not native.available():
            raise RuntimeError('the native library is not built; run pip install --no-build-isolation -e .')
        return lambda: attention_rows(layers, weights)
    form, dtype = side.split(', ')
    rows = {'literal': literal_rows, 'tuned': tuned_rows}[form]
    return lambda: rows(layers, weights, getattr(torch, dtype))


def _measure(request: Request) -> list[dict[str, Any]]:
    torch.set_num_threads(request.threads)
    make_call(request.side, Case(64, 1, 4, 16, 2))()  # loads libraries, starts threads
    results = []
    for case in request.cases:
        call = make_call(request.side, case)
        result: dict[str, Any] = {}
        if 'memory' in request.what:
            result['mb'] = _host_peak(call)
        if 'time' in request.what:
            seconds, rows = zip(*(_timed(call) for _ in range(request.calls)), strict=True)
            result['seconds'] = seconds
            if request.save:
                torch.save(rows[-1], request.save)
        results.append(result)
    return results


def _timed(call: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


if __name__ == '__main__':
    asked = json.loads(sys.argv[1])
    asked['cases'] = [Case(**case) for case in asked['cases']]
    print(json.dumps(_measure(Request(**asked))))
