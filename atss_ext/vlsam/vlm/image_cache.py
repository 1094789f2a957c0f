"""What an image processor made of the last image, kept for the next question about it."""

import copy
import hashlib
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from atss_ext.vlsam.protocols import Image


class ImageCache:
    """Remembers what the image processor made of one image, the last one.

    Every question about an image, and every reading of an answer, needs the same pixels; only the text
    differs. The image is known by its shape and a hash of its bytes, so one that was changed in place is
    another. Threads may share a cache: the entry is replaced as a whole, and none gets what another may
    change.
    """

    def __init__(self) -> None:
        self._entry: tuple[Hashable, Any] | None = None

    def attach(self, processor: Any, image: Image) -> Any:
        """A processor whose image processor asks this cache first; the given one is left as it is.

        Args:
            processor: of transformers, with an ``image_processor``.
            image: the only image that the result is called with; RGB uint8 [H, W, 3].

        Returns:
            a shallow copy of the processor.
        """
        digest = hashlib.blake2b(np.ascontiguousarray(image).data).digest()
        attached = copy.copy(processor)
        attached.image_processor = _Remembering(processor.image_processor, self, (image.shape, digest))
        return attached

    def get(self, key: Hashable) -> Any:
        """A copy of what was made for the key; None where that is not the last image."""
        entry = self._entry
        return copy.deepcopy(entry[1]) if entry is not None and entry[0] == key else None

    def put(self, key: Hashable, made: Any) -> None:
        """Remember a copy, and forget what was there; a processor takes entries out of its own."""
        self._entry = (key, copy.deepcopy(made))


class _Remembering:
    """An image processor in front of which a cache stands; all but the call is its own."""

    def __init__(self, image_processor: Any, cache: ImageCache, image_key: Hashable) -> None:
        self._image_processor, self._cache, self._image_key = image_processor, cache, image_key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        # Settings may be changed between two calls, by whoever owns the processor.
        settings = _described(vars(self._image_processor))
        key = (self._image_key, type(self._image_processor), settings, _described(options))
        made = self._cache.get(key)
        if made is None:
            made = self._image_processor(*args, **options)
            self._cache.put(key, made)
        return made


def _described(options: Mapping[str, Any]) -> str:
    """Options as text, but for the image, which is known already."""
    return repr(sorted((name, value) for name, value in options.items() if name != 'images'))
