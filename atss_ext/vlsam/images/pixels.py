"""Pixels of any kind as RGB of 8 bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from atss_ext.vlsam.protocols import VlsamError

_ALPHA = ('LA', 'La', 'PA', 'RGBA', 'RGBa')


def flattened(image: Pillow.Image) -> Pillow.Image:
    """An image of any mode as RGB, transparent pixels on white.

    Raises:
        VlsamError: the values are out of range, or the mode has no RGB; the sentence lacks its subject.
    """
    if image.mode.startswith('I') or image.mode == 'F':
        return Pillow.fromarray(_bytes(np.asarray(image))).convert('RGB')
    # In a palette, or as a colour that stands for "nothing".
    see_through = 'transparency' in image.info or (
        image.mode == 'P' and image.palette is not None and image.palette.mode.endswith('A')
    )
    try:
        if image.mode not in _ALPHA and not see_through:
            return image.convert('RGB')
        whole = image.convert('LA').convert('RGBA') if image.mode == 'La' else image.convert('RGBA')
    except ValueError as error:
        raise VlsamError(f"is of PIL mode '{image.mode}', which has no RGB; convert it first") from error
    white = Pillow.new('RGBA', whole.size, 'white')
    return Pillow.alpha_composite(white, whole).convert('RGB')


def plain_array(array: NDArray[Any]) -> NDArray[Any]:
    """An array whose shape and dtype are those of an image: [H,W], [H,W,3] or [H,W,4].

    Raises:
        VlsamError: it is something else; the sentence lacks its subject.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        last = ', channels last' if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ''
        raise VlsamError(f'has the shape {list(array.shape)}; pass [H,W,3], [H,W] or [H,W,4]{last}')
    if array.dtype.kind != 'f' and array.dtype not in (np.uint8, np.uint16):
        raise VlsamError(f'is of {array.dtype}; pass uint8, uint16 or floats in 0..1')
    return array


def flattened_array(array: NDArray[Any]) -> Pillow.Image:
    """An array, as :func:`plain_array` gives it, as RGB, transparent pixels on white.

    Raises:
        VlsamError: values are out of range; the sentence lacks its subject.
    """
    return flattened(Pillow.fromarray(_bytes(array)))


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """8-bit values: uint8 as they are, whole numbers / 257, floats * 255; to the nearest."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    floats = values.dtype.kind == 'f'
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= (1 if floats else 65535)):  # written so that NaN is refused, too
        kind = 'floats must lie in 0..1' if floats else 'whole numbers must fit 16 bits (0..65535)'
        raise VlsamError(f'has values from {low:g} to {high:g}; {kind}, or make it 8 bits a channel')
    if floats:
        return np.rint(values.astype(np.float32) * np.float32(255)).astype(np.uint8)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
