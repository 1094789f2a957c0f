"""Reading an image from anywhere, reduced where it is huge, and putting results back to its own size."""

import contextlib
import dataclasses
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.images.files import check_file, opencv_image, opened
from atss_ext.vlsam.images.pixels import flattened, flattened_array, plain_array
from atss_ext.vlsam.protocols import Image, VlsamError
from atss_ext.vlsam.run_lengths import resize_run_length

MIN_SIDE = 8
MAX_PIXELS = 400_000_000
_STRIP = 4_000_000  # pixels converted at once

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}


Source = str | Path | Pillow.Image | NDArray[Any]


class LoadedImage(NamedTuple):
    """An upright RGB image, reduced if it was larger than asked for.

    Attributes:
        pixels: RGB uint8 [h, w, 3], what to work on.
        size: (H, W) of the original, upright.
    """

    pixels: Image
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y): pixels of the working image per pixel of the original; 1.0 where it was not reduced."""
        return self.pixels.shape[1] / self.size[1], self.pixels.shape[0] / self.size[0]

    @classmethod
    def of(cls, pixels: Image, size: tuple[int, int] | None = None, max_side: int = 4096) -> 'LoadedImage':
        """An image that someone else has loaded, and may have resized.

        Args:
            pixels: an array as :func:`read_image` takes it.
            size: (H, W) of the original; None: that of ``pixels``.
            max_side: as of :func:`read_image`.
        """
        loaded = read_image(pixels, max_side)
        return loaded if size is None else cls(loaded.pixels, (int(size[0]), int(size[1])))


def read_image(source: Source, max_side: int = 4096, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """Read an image: upright, RGB, its longest side at most ``max_side``.

    EXIF rotation is applied. Grey becomes three equal channels. Transparent pixels are laid on white. 16-bit
    values are divided by 257 (65535 becomes 255), floats in 0..1 multiplied by 255. CMYK becomes RGB by the
    plain formula; colour profiles are not applied. Of an animation the first frame counts.

    A huge JPEG is decoded at a reduced size; other formats take up to 4 bytes a pixel of the original while
    they are read, and never a second copy of that size.

    Args:
        source: a file; a PIL image of any mode; or an array: RGB [H,W,3], grey [H,W] or [H,W,1], RGB and
            alpha [H,W,4], of uint8, uint16 or floats in 0..1. An RGB uint8 array that needs no change is
            not copied.
        max_side: longest side of the working image, pixels. The shorter side keeps at least 8.
        max_pixels: refuse images that claim more, before they are decoded.

    Returns:
        the working image and the original's size.

    Raises:
        VlsamError: there is no such file, it is no image, it is damaged, too small (a side of less than 8
            pixels) or too large, or an array's values or shape are none of the above.
        ValueError: ``max_side`` is less than 8.
    """
    if isinstance(max_side, bool) or not isinstance(max_side, int) or max_side < MIN_SIDE:
        raise ValueError(f'max_side must be an integer of at least {MIN_SIDE}, but is {max_side!r}.')
    limits = _Limits(max_side, max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, 'the array', limits)
    if isinstance(source, Pillow.Image):
        return _decoded(source, 'the PIL image', limits)
    if isinstance(source, str | Path):
        return _from_file(source, limits)
    raise VlsamError(
        f'an image must be a path, a PIL image or an array, but is a {type(source).__name__}; '
        'open it with PIL.Image.open first'
    )


def to_original(found: Detections, loaded: LoadedImage) -> Detections:
    """Put what was found on the working image back to the original's size, one mask at a time.

    A pixel of the original takes the mask's value of the working pixel that its centre lies in. Attention
    maps span the whole image at any size and stay as they are.

    Args:
        found: on ``loaded.pixels``.
        loaded: the image.

    Returns:
        the same objects in pixels of the original; ``found`` itself where nothing was reduced.

    Raises:
        ValueError: ``found`` is not of the working image's size.
    """
    working = loaded.pixels.shape[:2]
    if tuple(found.size) != working:
        raise ValueError(f'the detections must be of size {list(working)}, but are of {list(found.size)}.')
    if working == loaded.size:
        return found
    (height, width), (x, y) = loaded.size, loaded.scale
    boxes = np.clip(found.boxes.astype(np.float64) / (x, y, x, y), 0, (width, height, width, height))
    return dataclasses.replace(
        found,
        size=loaded.size,
        boxes=boxes.astype(np.float32),
        run_lengths=[resize_run_length(run_length, loaded.size) for run_length in found.run_lengths],
    )


class _Limits(NamedTuple):
    max_side: int
    max_pixels: int

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) to work on; the short side of a ribbon stays usable."""
        share = min(1.0, self.max_side / max(width, height))
        return max(MIN_SIDE, round(width * share)), max(MIN_SIDE, round(height * share))

    def check(self, width: int, height: int) -> None:
        """Refuse a size out of range; the sentence lacks its subject."""
        if min(width, height) < MIN_SIDE:
            raise VlsamError(
                f'is {width} x {height} pixels; both sides need at least {MIN_SIDE}, use a larger one'
            )
        if width * height > self.max_pixels:
            raise VlsamError(
                f'claims {width} x {height} pixels, more than {self.max_pixels / 1e6:,.4g} million; '
                'reduce it, or raise max_pixels if the machine has the memory'
            )


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    """Put the subject before a sentence that lacks it."""
    try:
        yield
    except VlsamError as error:
        raise VlsamError(f'{what} {error}') from error


def _from_array(array: NDArray[Any], what: str, limits: _Limits) -> LoadedImage:
    with _about(what):
        pixels = plain_array(array)
        height, width = pixels.shape[:2]
        limits.check(width, height)
        target = limits.working_size(width, height)
        if pixels.dtype == np.uint8 and pixels.shape[2:] == (3,) and target == (width, height):
            return LoadedImage(np.ascontiguousarray(pixels), (height, width))
        reduced = _reduce(lambda top, bottom: flattened_array(pixels[top:bottom]), (width, height), target)
    return LoadedImage(np.array(reduced), (height, width))


def _from_file(source: str | Path, limits: _Limits) -> LoadedImage:
    path = check_file(source)
    what = f'image {path}'
    try:
        with open(path, 'rb') as file:
            return _from_stream(file, what, limits)
    except OSError as error:
        raise VlsamError(f'{what} cannot be read ({error.strerror or error}); correct its rights') from error


def _from_stream(file: IO[bytes], what: str, limits: _Limits) -> LoadedImage:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # PIL tells of odd metadata, which does not matter here
        try:
            image = opened(file)
        except Exception as error:
            raise _damaged(what, error) from error
        if image is not None:
            return _decoded(image, what, limits, own=True)
    with _about(what):
        array = opencv_image(file, limits.check)
    if array is None:
        raise VlsamError(f'{what} is no image of a known format, or its beginning is damaged; replace it')
    return _from_array(array, what, limits)


def _decoded(image: Pillow.Image, what: str, limits: _Limits, own: bool = False) -> LoadedImage:
    """The working image of an opened one; a JPEG of our ``own`` may be decoded at a reduced size."""
    width, height = image.size
    with _about(what):
        limits.check(width, height)
    target = limits.working_size(width, height)
    try:
        if own:
            image.draft(None, target)
        image.load()
        orientation = _orientation(image)
        if image.size == (height, width):  # PIL turns TIFF images on its own
            width, height, target = height, width, (target[1], target[0])
        with _about(what):
            reduced = _reduce(
                lambda top, bottom: flattened(image.crop((0, top, image.width, bottom))), image.size, target
            )
    except VlsamError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise _damaged(what, error) from error
    if orientation in _UPRIGHT:
        reduced = reduced.transpose(_UPRIGHT[orientation])
    size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    return LoadedImage(np.array(reduced), size)


def _damaged(what: str, error: Exception) -> VlsamError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return VlsamError(f'{what} is damaged ({reason}); replace it')


def _orientation(image: Pillow.Image) -> int:
    """The EXIF orientation, 1 where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return 1


def _reduce(
    strip: Callable[[int, int], Pillow.Image], size: tuple[int, int], target: tuple[int, int]
) -> Pillow.Image:
    """An image, RGB, at its target size, converted strip by strip so that no second copy is made.

    Args:
        strip: gives rows top to bottom as RGB.
        size: (width, height) of the image.
        target: (width, height), neither larger.
    """
    (width, height), factor = size, min(size[0] // target[0], size[1] // target[1])
    reduced = Pillow.new('RGB', (-(-width // factor), -(-height // factor)))
    rows = max(1, _STRIP // width // factor) * factor
    for top in range(0, height, rows):
        part = strip(top, min(top + rows, height))
        reduced.paste(part.reduce(factor) if factor > 1 else part, (0, top // factor))
    if reduced.size == target:
        return reduced
    # The last block of a row may be cut: the true edge lies inside of it.
    return reduced.resize(target, Pillow.Resampling.BILINEAR, (0, 0, width / factor, height / factor))
