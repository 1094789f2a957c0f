"""Tools in processes that have the large libraries already: a second to start instead of eight.

Each is a process of its own, with its own arguments, folder, environment and output, forked from one that has
imported libraries and done nothing else; the script and what it uses of atss_ext it imports itself. What a
library reads from the environment at its import is set for all of them: tests of such variables start an
interpreter.
"""

import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

from torch.multiprocessing import ProcessContext, start_processes

TESTS = Path(__file__).resolve().parent
LIBRARIES = [
    'cv2',
    'mmdet.datasets',
    'mmdet.evaluation',
    'mmdet.models',
    'mmengine.runner',
    'transformers.models.llava.modeling_llava',
    'transformers.models.sam.modeling_sam',
]


@functools.cache
def _context() -> multiprocessing.context.BaseContext:
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(LIBRARIES)
    with mock.patch.dict(os.environ, OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1'):
        forkserver.ensure_running()
    return context


def _script(words: Sequence[str], cwd: str, environment: Mapping[str, str], out: str, err: str) -> None:
    """What the process does: as ``python words``, from ``cwd``."""
    for name, number in ((out, 1), (err, 2)):
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    given = filter(None, environment.get('PYTHONPATH', '').split(os.pathsep))
    installed = [path for path in sys.path if path and not Path(path).is_relative_to(TESTS)]
    sys.path[:] = [str(Path(words[0]).resolve().parent), *given, *installed]
    sys.argv = list(words)
    runpy.run_path(words[0], run_name='__main__')


def run_warm(
    words: Sequence[object], cwd: Path, environment: Mapping[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs a Python script; its exit code and what it wrote.

    Args:
        words: path of the script, relative to ``cwd``, and its arguments.
        cwd: folder it runs in.
        environment: all variables it sees.
        timeout: seconds after which it is killed.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    words = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ('out', 'err')]
        for output in outputs:
            output.touch()
        arguments = (words, str(cwd), dict(environment), *map(str, outputs))
        process = _context().Process(target=_script, args=arguments)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in outputs))


def spawn_warm(
    function: Callable, args: tuple = (), nprocs: int = 1, join: bool = True
) -> ProcessContext | None:
    """``torch.multiprocessing.spawn``, of the same arguments, from the process that has the libraries."""
    _context()
    return start_processes(function, args, nprocs, join, start_method='forkserver')
