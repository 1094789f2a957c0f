"""Says what is being scored, and how long it took: a set of val's size is not scored in a moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger

_MILLION = 1_000_000


@contextmanager
def scoring(
    what: str, images: int, detections: int, how: str, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Say a line before and a line after.

    Nothing is said after where scoring fails.

    Args:
        what: whose figures, such as 'CODA'.
        images: all that count, those without detections too.
        detections: that are compared.
        how: 'bbox' or 'segm', and what else tells this scoring from the next ('bbox, fixed').
        say: takes a line; by default mmengine's current logger does.
    """
    say = say or _log
    say(f'{what}: scoring {images:,} images, {_count(detections)} detections, {how} ...')
    start = time.perf_counter()
    yield
    say(f'{what}: scored {how} in {time.perf_counter() - start:.1f} s')


def _log(line: str) -> None:
    logger: MMLogger = MMLogger.get_current_instance()
    logger.info(line)


def _count(number: int) -> str:
    return f'{number / _MILLION:.1f} million' if number >= _MILLION else f'{number:,}'
