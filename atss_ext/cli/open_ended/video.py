"""A video: frames are images, and objects keep their numbers."""

import uuid
from pathlib import Path

import cv2
import numpy as np

from atss_ext.cli.open_ended.counter import Counter
from atss_ext.cli.open_ended.job import Job, attempt, export, exporting, key_of
from atss_ext.visualization.overlay import overlay_frame
from atss_ext.vlsam.images import frames
from atss_ext.vlsam.protocols import Image, VlsamError
from atss_ext.vlsam.store import ResultStore
from atss_ext.vlsam.tracking import Tracker

# Where the container does not tell.
_FALLBACK_RATE = 1.0


def run_video(job: Job, store: ResultStore) -> int:
    """Look at every Nth frame; write a video of them and number the objects through it.

    Returns:
        how many frames failed.
    """
    counter, tracker = Counter(0), Tracker()
    keys: dict[str, str] = {}
    numbers: dict[str, list[int]] = {}
    video = key_of(job.source, job.source.stem)
    with exporting(lambda: export(job, store, keys, numbers)):
        writer = _Writer(job.out / f'{job.source.stem}.mp4') if job.pictures else None
        try:
            for frame in frames(job.source, job.every):
                name = f'{job.source.stem}/{frame.index:08d}'
                key = f'{video} {frame.index}'
                counter.total = frame.total
                found = attempt(job, store, name, key, frame.pixels, counter)
                picture = frame.pixels  # as it is, where it failed: the video keeps its time
                if found is not None:
                    numbers[name], keys[name] = tracker.update(found), key
                    labels = [f'{label} #{n}' for label, n in zip(found.names, numbers[name], strict=True)]
                    picture = overlay_frame(picture, found.boxes, labels, found.scores, found.mask)
                if writer:
                    writer.add(picture, frame.rate)
            if writer:
                writer.finish()
        finally:
            if writer:
                writer.close()
    counter.finish(job.out)
    return counter.failed


class _Writer:
    """Writes frames into an MP4 that stands at its place when it is whole.

    Args:
        path: of the video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f'.{uuid.uuid4().hex}.mp4')
        self._video: cv2.VideoWriter | None = None

    def add(self, image: Image, rate: float) -> None:
        """The next frame, RGB uint8 [H, W, 3]; all are of one size.

        Raises:
            VlsamError: OpenCV cannot write such a video.
        """
        if self._video is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter.fourcc(*'mp4v')
            size = (image.shape[1], image.shape[0])
            video = cv2.VideoWriter(str(self._partial), codec, rate or _FALLBACK_RATE, size)
            if not video.isOpened():
                raise VlsamError(f'{self.path} cannot be written by OpenCV; give --no-pictures')
            self._video = video
        self._video.write(np.ascontiguousarray(image[..., ::-1]))

    def finish(self) -> None:
        """Put the video at its place."""
        if self._video is not None:
            self._video.release()
            self._video = None
            self._partial.replace(self.path)

    def close(self) -> None:
        """Leave nothing of a video that is not whole; an earlier one stays."""
        if self._video is not None:
            self._video.release()
        self._partial.unlink(missing_ok=True)
