"""One training in a process of its own, and what is kept of it."""

import hashlib
import json
import math
import multiprocessing
import os
import shutil
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _paper_locks import Held, hold
from mmengine.config import Config

import atss_ext
from atss_ext.cli.errors import explain
from atss_ext.cli.runner import build_runner
from atss_ext.errors import UserError

METRICS = ('AP', 'AP50', 'AP75')
_PACKAGE = Path(atss_ext.__file__).parent
_KEYS = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75')


@dataclass(frozen=True)
class Run:
    """A row with a seed.

    Attributes:
        row: name of the row's config.
        seed: of the training.
        cfg: all of it but ``work_dir``.
        folder: of everything that is kept; named after the content of config and data, so that rows of the
            same content, of whatever table, are trained once, and after the code.
    """

    row: str
    seed: int
    cfg: Config
    folder: Path

    @property
    def result(self) -> dict[str, Any] | None:
        """AP, AP50, AP75 (percent) and seconds of a finished run; None of a damaged file, too."""
        return _read_result(self.folder)

    @property
    def lock(self) -> Path:
        """The file that whoever trains or removes the run holds."""
        return self.folder.parent / f'.{self.folder.name}.lock'

    @property
    def of_other_code(self) -> Path | None:
        """The folder of the newest finished run of the same config, seed and data by other code."""
        content = self.folder.name.partition('-')[0]
        # Those from before the code was part of the name have no more than the content.
        folders = [self.folder.parent / content, *self.folder.parent.glob(f'{content}-*')]
        finished = [one for one in folders if one != self.folder and _read_result(one)]
        return max(finished, key=lambda one: (one / 'result.json').stat().st_mtime_ns, default=None)


def _read_result(folder: Path) -> dict[str, Any] | None:
    try:
        result = json.loads((folder / 'result.json').read_text())
    except (OSError, ValueError):
        return None
    values = [result.get(key) for key in (*METRICS, 'seconds')] if isinstance(result, dict) else [None]
    whole = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    return result if whole else None


def make_run(row: str, cfg: Config, seed: int, digest: str, root: Path) -> Run:
    """The run of a row's config with a seed on data of a digest."""
    cfg = Config(cfg.to_dict())
    cfg.randomness = {'seed': seed}
    # Where data lie does not make a run another one; what they hold does.
    text = json.dumps(_without_paths(cfg.to_dict()), sort_keys=True, default=str) + digest
    content = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Run(row, seed, cfg, root / f'{content}-{code_digest(_PACKAGE)}')


def code_digest(package: Path) -> str:
    """8 hexadecimal digits of what a training runs of the package: its version, heads, assigners and ops.

    By bytes: a comment makes it another one too.
    """
    digest = hashlib.sha256(atss_ext.__version__.encode())
    for part in ('models', 'assigners', 'ops', 'csrc'):
        for path in sorted((package / part).rglob('*')):
            if path.suffix in ('.py', '.h', '.cuh', '.cpp', '.cu'):
                digest.update(f'{path.relative_to(package).as_posix()}\n'.encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def _without_paths(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_paths(v) for k, v in node.items() if k not in ('ann_file', 'data_prefix')}
    return [_without_paths(item) for item in node] if isinstance(node, list | tuple) else node


def perform(run: Run) -> dict[str, Any] | None:
    """Train and score in a process of its own; None where that failed, and why is the end of its log.txt.

    Where another command has the same run at work, its end is waited for, and its result taken.
    """
    with hold(run.lock) as held:
        if run.result is None:
            shutil.rmtree(run.folder, ignore_errors=True)  # of a run that was killed
            run.folder.mkdir(parents=True)
            _train_apart(run, held)
    return run.result


def _train_apart(run: Run, held: Held) -> None:
    # Not forked: in a fork OpenMP waits for ever for threads that this process had, and a GPU is lost to it.
    context = multiprocessing.get_context('spawn')
    child = context.Process(target=_child, args=(run, os.getpid(), held))
    child.start()
    try:
        child.join()
    except BaseException:
        child.terminate()
        child.join()
        raise


def last_words(run: Run) -> str:
    """The last line of a failed run's log."""
    try:
        lines = (run.folder / 'log.txt').read_text(errors='replace').strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else 'it said nothing'


def _child(run: Run, parent: int, held: Held) -> None:
    del held  # having it is enough: open here too, it outlives a parent that is killed
    log = os.open(run.folder / 'log.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    code = 1
    try:
        _train(run)
        code = 0
    except BaseException as error:
        os.write(2, f'{traceback.format_exc()}\n{explain(error) or ""}'.encode())
    os._exit(code)  # without what the parent registered for its own end


def _end_with(parent: int) -> None:
    """End when the parent was killed, so that whoever resumes finds nobody at work."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _train(run: Run) -> None:
    if run.folder.name != f'{run.folder.name.partition("-")[0]}-{code_digest(_PACKAGE)}':
        raise UserError('the code of atss_ext was changed while the command ran; start the command again')
    started = time.monotonic()
    cfg = run.cfg
    cfg.work_dir = str(run.folder)
    cfg.launcher = 'none'
    runner = build_runner(cfg)
    runner.train()
    found = runner.val_loop.run()
    result: dict[str, Any] = {'row': run.row, 'seed': run.seed, 'seconds': time.monotonic() - started}
    for name, key in zip(METRICS, _KEYS, strict=True):
        # Without any detection the metric is silent, or says -1.
        result[name] = max(0.0, 100 * float(found.get(f'coco/{key}', 0.0)))
    partial = run.folder / '.result.partial'
    partial.write_text(json.dumps(result, indent=1))
    os.replace(partial, run.folder / 'result.json')
