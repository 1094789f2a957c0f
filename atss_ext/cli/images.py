"""An image that cannot be loaded is named."""

import functools
import os

from mmcv.transforms import LoadImageFromFile

from atss_ext.cli.errors import unreadable_image
from atss_ext.datasets.checks import DataError


def name_unreadable_images() -> None:
    """Let mmcv's image loader say which file it fails on, in this process and its workers.

    OpenCV's own errors name no file (an empty file ends in an assertion about a buffer), and
    an exception of a worker process arrives as text only: the name has to be put in where the
    image is loaded. Workers that are spawned rather than forked keep mmcv's own messages.
    """
    original = LoadImageFromFile.transform
    if getattr(original, 'names_files', False):
        return

    @functools.wraps(original)
    def transform(self: LoadImageFromFile, results: dict) -> dict | None:
        import cv2

        try:
            return original(self, results)
        except FileNotFoundError:
            reason = 'no such file'
        except AssertionError:
            reason = 'it is no image, or it is damaged'
        except (OSError, SyntaxError, cv2.error) as error:  # PIL raises SyntaxError on a broken PNG
            empty = os.path.isfile(results['img_path']) and not os.path.getsize(results['img_path'])
            reason = 'it is empty' if empty else str(error).strip().splitlines()[0]
        raise DataError(unreadable_image(results['img_path'], reason))

    transform.names_files = True  # type: ignore[attr-defined]
    LoadImageFromFile.transform = transform
