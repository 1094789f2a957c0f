"""Files that people send: how large they may be, and how they are read."""

import os
from dataclasses import dataclass
from pathlib import Path

from atss_ext.errors import UserError
from atss_ext.vlsam.images import read_image
from atss_ext.vlsam.protocols import Image, VlsamError


@dataclass(frozen=True)
class Limits:
    """How much one upload may be.

    Attributes:
        megabytes: of a file.
        megapixels: that an image may claim; it is refused before it is decoded.

    Raises:
        UserError: a limit is not positive.
    """

    megabytes: float = 10
    megapixels: float = 25

    def __post_init__(self) -> None:
        for name in ('megabytes', 'megapixels'):
            if not getattr(self, name) > 0:
                raise UserError(f'--max-{name} {getattr(self, name)} must be greater than 0')

    @property
    def file_bytes(self) -> int:
        """Of a file."""
        return int(self.megabytes * 2**20)

    @property
    def stored_bytes(self) -> int:
        """Of all files together that the server keeps; beyond, the oldest are deleted."""
        return max(2**28, 32 * self.file_bytes)

    @property
    def pixels(self) -> int:
        """Of an image."""
        return int(self.megapixels * 1_000_000)


def read_upload(path: str | None, limits: Limits) -> Image:
    """The image that was sent, upright RGB uint8 [H, W, 3] at its own size.

    Args:
        path: where the server put it; None where nothing was sent.
        limits: of its size.

    Raises:
        UserError: there is none, it is too large, or it is no image; the file is called as the sender does.
    """
    if not path or not os.path.isfile(path):
        raise UserError('no image is there yet; drop one into the field, or draw an example')
    name = Path(path).name
    check_size(path, limits)
    try:
        # No side may be longer than the whole image may have pixels: nothing is reduced.
        return read_image(path, max_side=max(8, limits.pixels), max_pixels=limits.pixels).pixels
    except VlsamError as error:
        sentence = str(error).replace(str(path), name)
        what, too_large, _ = sentence.partition('; reduce it')
        # The way out is another one here than where a caller chooses the limit.
        raise UserError(
            f'{what}, the most that this page takes; reduce it' if too_large else sentence
        ) from error


def check_size(path: str, limits: Limits) -> None:
    """Refuse a file of too many bytes.

    Raises:
        UserError: with its size and the limit.
    """
    size = os.path.getsize(path)
    if size > limits.file_bytes:
        raise UserError(
            f'{Path(path).name} has {size / 2**20:.3g} MB; this page takes up to {limits.megabytes:g} MB: '
            'send a smaller one'
        )
