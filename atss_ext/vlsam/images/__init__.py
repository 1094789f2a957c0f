"""Images as people have them: files of any format, folders, videos, arrays."""

from atss_ext.vlsam.images.media import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Frame,
    frames,
    is_video,
    list_images,
)
from atss_ext.vlsam.images.reading import LoadedImage, Source, read_image, to_original

__all__ = [
    'IMAGE_SUFFIXES',
    'VIDEO_SUFFIXES',
    'Frame',
    'LoadedImage',
    'Source',
    'frames',
    'is_video',
    'list_images',
    'read_image',
    'to_original',
]
