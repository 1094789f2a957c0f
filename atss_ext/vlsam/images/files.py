"""Image files: what may be opened, by which library, and what it claims to hold before it is decoded."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile

from atss_ext.vlsam.images.media import is_video
from atss_ext.vlsam.protocols import VlsamError

# Formats that only OpenCV reads and whose header, a text, states the size: Radiance HDR and PAM.
_TEXT_HEADERS = (
    re.compile(rb'#\?(?:RADIANCE|RGBE)\b.*?\n-Y (?P<height>\d+) \+X (?P<width>\d+)\n', re.DOTALL),
    re.compile(rb'P7\s.*?\bWIDTH (?P<width>\d+)\s.*?\bHEIGHT (?P<height>\d+)\s.*?ENDHDR\n', re.DOTALL),
)
_HEADER = 4096
_REFUSED = ('EPS', 'WMF')  # drawings, which PIL hands to other programs


def check_file(source: str | Path) -> Path:
    """The path of a regular file.

    Raises:
        VlsamError: it is missing, a folder, empty, a video, an address or no regular file.
    """
    if str(source).startswith(('http://', 'https://')):
        raise VlsamError(f'image {source} is an address; download it and name the file')
    path = Path(source)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise VlsamError(f'image {path} does not exist; correct the path') from error
    except OSError as error:
        raise VlsamError(f'image {path} cannot be read ({error.strerror}); correct the path') from error
    if path.is_dir():
        raise VlsamError(f'image {path} is a folder; name an image in it')
    if not path.is_file():
        raise VlsamError(f'image {path} is no regular file; copy it into one')
    if not found.st_size:
        raise VlsamError(f'image {path} is empty; replace it')
    if is_video(path):
        raise VlsamError(f'image {path} is a video; read its frames with atss_ext.vlsam.images.frames')
    return path


def opened(file: IO[bytes]) -> ImageFile.ImageFile | None:
    """What PIL makes of a file's header; None where it knows no such format.

    ``PIL.Image.open`` without its own limits on the number of pixels, which are global and cannot be told
    apart from the caller's: the caller checks the size before anything is decoded.
    """
    prefix = file.read(16)
    Pillow.init()
    for name in (name for name in Pillow.ID if name not in _REFUSED):
        factory, accepts = Pillow.OPEN[name]
        if accepts is not None and accepts(prefix) is not True:
            continue
        try:
            file.seek(0)
            return factory(file, '')
        except (SyntaxError, IndexError, TypeError, struct.error):  # how PIL's readers say "not mine"
            continue
    return None


def opencv_image(file: IO[bytes], check: Callable[[int, int], None]) -> NDArray[Any] | None:
    """RGB uint8 [H,W,3] of a file only OpenCV reads; None where it is no such file.

    Args:
        file: of a format PIL does not know.
        check: called with the (width, height) the header claims; raises where they are out of range.
    """
    file.seek(0)
    header = file.read(_HEADER)
    claims = next((found for found in (form.match(header) for form in _TEXT_HEADERS) if found), None)
    if claims is None:
        return None
    check(int(claims['width']), int(claims['height']))
    file.seek(0)
    image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.ascontiguousarray(image[..., ::-1])
