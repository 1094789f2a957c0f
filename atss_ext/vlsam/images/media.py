"""Folders of images and frames of videos."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from atss_ext.vlsam.protocols import Image, VlsamError

IMAGE_SUFFIXES = frozenset(
    f'.{name}'
    for name in (
        *('avif', 'bmp', 'dib', 'gif', 'hdr', 'j2k', 'jfif', 'jp2', 'jpe', 'jpeg', 'jpg', 'mpo', 'pam'),
        *('pbm', 'pcx', 'pgm', 'pic', 'png', 'pnm', 'ppm', 'tga', 'tif', 'tiff', 'webp'),
    )
)
VIDEO_SUFFIXES = frozenset(
    f'.{name}'
    for name in (
        *('3gp', 'avi', 'flv', 'm2ts', 'm4v', 'mkv', 'mov', 'mp4', 'mpeg', 'mpg', 'mts', 'ogv', 'ts'),
        *('vob', 'webm', 'wmv'),
    )
)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        index: of the frame in the video, from 0.
        time: seconds since the first frame.
        pixels: RGB uint8 [H,W,3], upright.
        total: how many frames there will be in all, as far as the file knows.
        rate: of these frames, a second; 0.0 where the file does not say.
    """

    index: int
    time: float
    pixels: Image
    total: int
    rate: float


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name is that of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def list_images(path: str | os.PathLike[str], recursive: bool = False) -> list[Path]:
    """The images of a folder, in natural order: ``2.jpg`` before ``10.jpg``.

    Hidden files and folders (a leading dot), broken links and what has no image's suffix are left out; links
    to folders are not followed.

    Args:
        path: a folder. A file is returned as it is.
        recursive: look into folders within, too.

    Returns:
        paths that begin with ``path``.

    Raises:
        VlsamError: the path does not exist, or there is no image.
    """
    folder = Path(path)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise VlsamError(f'{folder} does not exist; correct the path')
    found = []
    for root, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith('.')]
        places = (Path(root, name) for name in files if not name.startswith('.'))
        found += [place for place in places if place.suffix.lower() in IMAGE_SUFFIXES and place.is_file()]
    if not found:
        within = '' if recursive else ' itself'
        raise VlsamError(f'folder {folder}{within} has no image (.jpg, .png, ...); name another folder')
    return sorted(found, key=lambda place: _natural(place.relative_to(folder)))


def frames(path: str | os.PathLike[str], every: int | None = 1) -> Iterator[Frame]:
    """Every ``every``-th frame of a video, from the first.

    Frames between are not turned into pixels. A damaged video ends at its first unreadable frame.

    Args:
        path: a video of any format OpenCV reads.
        every: 1 gives all frames; None about one a second.

    Returns:
        an iterator; closing it closes the file.

    Raises:
        VlsamError: the file is missing, no video, or has no readable frame.
        ValueError: ``every`` is less than 1.
    """
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise ValueError(f'every must be an integer of at least 1 or None, but is {every!r}.')
    path = Path(path)
    if not path.is_file():
        fault = 'is a folder' if path.is_dir() else 'does not exist'
        raise VlsamError(f'video {path} {fault}; correct the path')
    # OpenCV would take the image's name as the pattern of a sequence.
    if path.suffix.lower() in IMAGE_SUFFIXES - {'.gif'}:
        raise VlsamError(f'video {path} is an image; pass it as one')
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened() or not capture.grab():
        capture.release()
        raise VlsamError(f'video {path} is no video, damaged, or of an unknown codec; convert it')
    rate = max(0.0, capture.get(cv2.CAP_PROP_FPS))
    return _grabbed(capture, every or max(1, round(rate)), rate)


def _grabbed(capture: cv2.VideoCapture, every: int, rate: float) -> Iterator[Frame]:
    """The frames of a capture whose first frame has been grabbed."""
    count = int(max(0.0, capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    index, first, time = 0, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 0.0
    try:
        while True:
            if index % every == 0:
                done, image = capture.retrieve()
                if not done:
                    return
                total = -(-max(count, index + 1) // every)
                yield Frame(index, time, np.ascontiguousarray(image[..., ::-1]), total, rate / every)
            if not capture.grab():
                return
            index += 1
            # A container without time stamps answers with zero.
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 - first
            time = stamp if stamp > time else (index / rate if rate > 0 else time)
    finally:
        capture.release()


def _natural(path: Path) -> tuple[list[list[str | int]], str]:
    """Sorts digits by their value, letters without regard to case, and equals by their plain spelling."""
    parts = [
        [int(word) if number % 2 else word.casefold() for number, word in enumerate(re.split(r'(\d+)', part))]
        for part in path.parts
    ]
    return parts, str(path)


def _refuse(error: OSError) -> None:
    raise VlsamError(f'folder {error.filename} cannot be read ({error.strerror}); correct its rights')
