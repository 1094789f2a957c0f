"""Training progress for people: a line that changes on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from mmengine.hooks import Hook
from mmengine.runner import Runner

from atss_ext.registry import HOOKS

_REDRAW_SECONDS = 0.2


def duration(seconds: float) -> str:
    """'45 s', '3 min 20 s' or '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f'{whole} s'
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02d} s'
    return f'{whole // 3600} h {whole % 3600 // 60:02d} min'


@HOOKS.register_module()
class ProgressHook(Hook):
    """Say how far a training is: epoch, iteration, loss, time left; and the AP when it is known.

    The time left is reckoned from this run alone (a resumed one starts its clock anew) and counts the
    validations at the pace seen so far.

    Args:
        every: seconds between two lines where ``stream`` is no terminal; at least 0.
        stream: where to write; the standard output as it is when the hook is built.
        metrics: the metrics a validation line names: key in mmengine's results to label.

    Raises:
        ValueError: ``every`` is negative.
    """

    priority = 'VERY_LOW'

    def __init__(
        self, every: float = 15.0, stream: TextIO | None = None, metrics: Mapping[str, str] | None = None
    ) -> None:
        if every < 0:
            raise ValueError(f'every must be at least 0 seconds, but is {every}.')
        self.every = every
        self.stream = stream or sys.stdout
        self.metrics = metrics or {'coco/bbox_mAP': 'AP', 'coco/bbox_mAP_50': 'AP50'}
        self.terminal = self.stream.isatty()
        self._started = self._spoke = 0.0
        self._first_iter = 0
        self._width = 0

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self._started = self._spoke = time.monotonic()
        self._first_iter = runner.iter

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Speak when the last word is old enough."""
        now, done = time.monotonic(), runner.iter + 1
        epoch_ends = batch_idx + 1 == len(runner.train_dataloader)
        if not epoch_ends and now - self._spoke < (_REDRAW_SECONDS if self.terminal else self.every):
            return
        self._spoke = now
        left = (now - self._started) * (runner.max_iters - done) / max(1, done - self._first_iter)
        loss = runner.message_hub.get_scalar('train/loss').mean(20)
        steps = len(runner.train_dataloader)
        where = f'epoch {runner.epoch + 1}/{runner.max_epochs}  step {batch_idx + 1}/{steps}'
        self._say(f'{where}  loss {loss:.3f}  {duration(left)} left', stay=epoch_ends)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Show on a terminal that a validation is under way."""
        if self.terminal:
            self._say(f'evaluating {batch_idx + 1}/{len(runner.val_dataloader)}', stay=False)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say what the validation found."""
        found = metrics or {}
        known = [f'{label} {found[key]:.3f}' for key, label in self.metrics.items() if key in found]
        if known:
            self._say(f'epoch {runner.epoch}/{runner.max_epochs}  validation: ' + '  '.join(known), stay=True)

    def _say(self, words: str, stay: bool) -> None:
        if self.terminal:
            # Blanks wipe the rest of a longer line that stood there before.
            self.stream.write(f'\r  {words:<{self._width}}' + ('\n' if stay else ''))
            self._width = 0 if stay else len(words)
        else:
            self.stream.write(f'  {words}\n')
        self.stream.flush()
