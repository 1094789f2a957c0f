"""Images from every source, upright and bounded, and results put back to their own size."""

import io
import os
import re
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from atss_ext.vlsam.images import read_image
from atss_ext.vlsam.protocols import VlsamError

ORIENTATION = 0x0112


def picture(height=20, width=30):
    """RGB uint8 [H,W,3]: no two pixels alike, nothing symmetric."""
    rows, columns = np.mgrid[:height, :width]
    channels = rows * 255 // height, columns * 255 // width, rows * columns % 251
    return np.stack(channels, -1).astype(np.uint8)


def refusal(source, **options):
    with pytest.raises(VlsamError) as caught:
        read_image(source, **options)
    return str(caught.value)


# Files


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'tif', 'ppm', 'webp', 'gif', 'tga', 'pam'])
def test_lossless_files_are_read_as_they_are(tmp_path, suffix):
    path = tmp_path / f'Straße 1.{suffix}'
    pixels = picture()
    if suffix == 'pam':  # PIL knows none
        assert cv2.imwrite(str(path), pixels[..., ::-1])
    elif suffix == 'gif':
        pixels = np.array(Image.fromarray(pixels).quantize(200).convert('RGB'))
        Image.fromarray(pixels).save(path)
    else:
        Image.fromarray(pixels).save(path, **({'lossless': True} if suffix == 'webp' else {}))
    for source in (path, str(path)):
        loaded = read_image(source)
        np.testing.assert_array_equal(loaded.pixels, pixels)
        assert loaded.pixels.dtype == np.uint8
        assert loaded.size == (20, 30)
        assert loaded.scale == (1.0, 1.0)


def test_a_radiance_file_is_read_by_opencv(tmp_path):
    light = np.tile(np.linspace(0, 1, 40, dtype=np.float32)[None, :, None], (10, 1, 3))
    assert cv2.imwrite(str(tmp_path / 'sky.hdr'), light)
    np.testing.assert_allclose(read_image(tmp_path / 'sky.hdr').pixels, light * 255, atol=2)


def test_a_jpeg_is_read_within_its_loss(tmp_path):
    smooth = cv2.GaussianBlur(picture(64, 96), (0, 0), 3)
    Image.fromarray(smooth).save(tmp_path / 'a.jpg', quality=98)
    np.testing.assert_allclose(read_image(tmp_path / 'a.jpg').pixels.astype(int), smooth, atol=12)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'webp'])
@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('max_side', [4096, 24])
def test_every_orientation_is_turned_as_pil_turns_it(tmp_path, suffix, orientation, max_side):
    path = tmp_path / f'a.{suffix}'
    pixels = cv2.GaussianBlur(picture(40, 64), (0, 0), 2)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **({'lossless': True} if suffix == 'webp' else {}))
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        given = read_image(image, max_side)  # a PIL image keeps its tag, too
    expected = np.array(upright)
    assert expected.shape == ((40, 64, 3) if orientation < 5 else (64, 40, 3))
    loaded = read_image(path, max_side)
    assert loaded.size == given.size == expected.shape[:2]
    if max_side == 24:
        expected = np.array(upright.resize((24, 15) if orientation < 5 else (15, 24), Image.Resampling.BOX))
    for pixels in (loaded.pixels, given.pixels):
        assert pixels.shape == expected.shape
        np.testing.assert_allclose(pixels.astype(int), expected, atol=0 if max_side == 4096 else 16)


def test_a_picture_already_turned_is_not_turned_again(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(picture()).save(tmp_path / 'a.png', exif=exif)
    with Image.open(tmp_path / 'a.png') as image:
        upright = ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(read_image(upright).pixels, np.array(upright))


def test_a_broken_exif_is_no_reason_to_stop(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        Image.fromarray(picture()).save(tmp_path / 'a.png', exif=b'Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01')
        np.testing.assert_array_equal(read_image(tmp_path / 'a.png').pixels, picture())


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = picture()[..., 1]
    Image.fromarray(grey).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png').pixels, np.repeat(grey[..., None], 3, -1))


def test_sixteen_bits_are_scaled_by_257(tmp_path):
    values = np.full((8, 9), 65535, np.uint16)
    values[0, :7] = [0, 128, 129, 257, 385, 386, 32896]
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    Image.fromarray(values).save(tmp_path / 'a.tif')
    for name in ('a.png', 'a.tif'):
        pixels = read_image(tmp_path / name).pixels
        assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 1, 2, 128, 255, 255]
        assert (pixels[1:] == 255).all()


def test_transparent_pixels_are_laid_on_white(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, :4, 3] = [0, 255, 51, 204]
    Image.fromarray(rgba).save(tmp_path / 'a.png')
    for source in (tmp_path / 'a.png', rgba, Image.fromarray(rgba)):
        pixels = read_image(source).pixels
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[0, 1].tolist() == [200, 0, 0]
        # 255 - (255 - 200) * 0.2 = 244, 255 * 0.8 = 204; and the other way round
        np.testing.assert_allclose(pixels[0, 2:4].astype(int), [[244, 204, 204], [211, 51, 51]], atol=1)


def test_transparent_edges_do_not_bleed_when_reduced(tmp_path):
    rgba = np.zeros((80, 80, 4), np.uint8)  # black where transparent, as many programs write it
    rgba[:, ::2] = (200, 10, 10, 255)
    pixels = read_image(rgba, max_side=40).pixels
    np.testing.assert_allclose(
        pixels[10:30, 10:30].astype(int), np.full((20, 20, 3), [227, 132, 132]), atol=2
    )


def test_other_modes_of_pil(tmp_path):
    pixels = picture()
    image = Image.fromarray(pixels)
    for mode in ('1', 'L', 'P', 'YCbCr', 'HSV', 'CMYK', 'RGBX'):
        converted = image.convert(mode)
        np.testing.assert_array_equal(read_image(converted).pixels, np.array(converted.convert('RGB')), mode)
    half = Image.new('LA', (8, 8), (100, 0))
    assert (read_image(half).pixels == 255).all()
    assert (read_image(half.convert('La')).pixels == 255).all()
    assert (read_image(Image.new('RGBa', (8, 8), (0, 0, 0, 0))).pixels == 255).all()
    assert read_image(Image.new('F', (8, 8), 0.5)).pixels[0, 0].tolist() == [128, 128, 128]
    assert read_image(Image.new('I', (8, 8), 65535)).pixels[0, 0].tolist() == [255, 255, 255]


def test_a_palette_and_a_colour_may_be_transparent(tmp_path):
    indexed = Image.new('P', (8, 8), 1)
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.putpixel((0, 0), 0)
    indexed.save(tmp_path / 'p.png', transparency=bytes([0, 255]))
    indexed.save(tmp_path / 'p.gif', transparency=0)
    Image.fromarray(picture()).save(tmp_path / 'c.png', transparency=tuple(picture()[3, 4].tolist()))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for name in ('p.png', 'p.gif'):
            pixels = read_image(tmp_path / name).pixels
            assert pixels[0, 0].tolist() == [255, 255, 255]
            assert pixels[0, 1].tolist() == [40, 50, 60]
        keyed = read_image(tmp_path / 'c.png').pixels
    assert keyed[3, 4].tolist() == [255, 255, 255]
    assert keyed[3, 5].tolist() == picture()[3, 5].tolist()


def test_a_cmyk_jpeg_has_the_right_colours(tmp_path):
    Image.new('CMYK', (16, 16), (0, 255, 255, 0)).save(tmp_path / 'a.jpg', quality=95)
    np.testing.assert_allclose(read_image(tmp_path / 'a.jpg').pixels.astype(int)[8, 8], [255, 0, 0], atol=6)


def test_the_first_picture_of_an_animation(tmp_path):
    colours = [(200, 0, 0), (0, 200, 0)]
    first, second = (Image.new('RGB', (12, 10), colour) for colour in colours)
    for name in ('a.gif', 'a.webp', 'a.png', 'a.tif'):
        lossless = {'lossless': True} if name.endswith('webp') else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **lossless)
        loaded = read_image(tmp_path / name)
        assert loaded.size == (10, 12)
        assert (loaded.pixels == colours[0]).all(), name


# Arrays


def test_arrays_of_every_kind():
    pixels = picture()
    loaded = read_image(pixels)
    assert loaded.pixels is pixels
    np.testing.assert_array_equal(read_image(pixels[:, ::-1]).pixels, pixels[:, ::-1])
    assert read_image(pixels[:, ::-1]).pixels.flags.c_contiguous
    grey = np.repeat(pixels[..., :1], 3, -1)
    np.testing.assert_array_equal(read_image(pixels[..., 0]).pixels, grey)
    np.testing.assert_array_equal(read_image(pixels[..., :1]).pixels, grey)
    for kind in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(read_image((pixels / 255).astype(kind)).pixels, pixels)
    np.testing.assert_array_equal(read_image(pixels.astype(np.uint16) * 257).pixels, pixels)
    np.testing.assert_array_equal(read_image(pixels.astype('>u2') * 257).pixels, pixels)


SHAPES = 'pass [H,W,3], [H,W] or [H,W,4]'
FLOATS = 'floats must lie in 0..1, or make it 8 bits a channel'


@pytest.mark.parametrize(
    ('array', 'sentence'),
    [
        (np.zeros((3, 20, 30), np.uint8), f'has the shape [3, 20, 30]; {SHAPES}, channels last'),
        (np.zeros((20, 30, 2), np.uint8), f'has the shape [20, 30, 2]; {SHAPES}'),
        (np.zeros((1, 20, 30, 3), np.uint8), f'has the shape [1, 20, 30, 3]; {SHAPES}'),
        (np.zeros((20, 30), np.int64), 'is of int64; pass uint8, uint16 or floats in 0..1'),
        (np.zeros((20, 30), bool), 'is of bool; pass uint8, uint16 or floats in 0..1'),
        (np.full((20, 30), 255.0), f'has values from 255 to 255; {FLOATS}'),
        (np.full((20, 30), np.nan), f'has values from nan to nan; {FLOATS}'),
        (np.full((20, 30), -0.5), f'has values from -0.5 to -0.5; {FLOATS}'),
        (np.zeros((1, 1, 3), np.uint8), 'is 1 x 1 pixels; both sides need at least 8, use a larger one'),
        (np.zeros((300, 7, 3), np.uint8), 'is 7 x 300 pixels; both sides need at least 8, use a larger one'),
        (np.zeros((0, 0, 3), np.uint8), 'is 0 x 0 pixels; both sides need at least 8, use a larger one'),
    ],
)  # fmt: skip
def test_other_arrays_are_refused_in_a_sentence(array, sentence):
    assert refusal(array) == f'the array {sentence}'


def test_the_smallest_image():
    assert read_image(np.zeros((8, 8, 3), np.uint8)).size == (8, 8)


# What cannot be read


def test_paths_that_are_no_image_are_refused_in_a_sentence(tmp_path):
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'words.jpg').write_text('I am no image at all, but a text of some length.')
    (tmp_path / 'film.mp4').write_bytes(b'x')
    os.mkfifo(tmp_path / 'pipe')
    Image.fromarray(picture(1, 1)).save(tmp_path / 'dot.png')
    expected = {
        'absent.jpg': 'does not exist; correct the path',
        'empty.jpg/a.jpg': 'does not exist; correct the path',
        'a\0b': 'does not exist; correct the path',
        '': 'is a folder; name an image in it',
        'pipe': 'is no regular file; copy it into one',
        'empty.jpg': 'is empty; replace it',
        'words.jpg': 'is no image of a known format, or its beginning is damaged; replace it',
        'film.mp4': 'is a video; read its frames with atss_ext.vlsam.images.frames',
        'dot.png': 'is 1 x 1 pixels; both sides need at least 8, use a larger one',
    }
    for name, words in expected.items():
        path = tmp_path / name
        assert refusal(path) == refusal(str(path)) == f'image {path} {words}'
    assert refusal(tmp_path / ('a' * 300)).endswith('cannot be read (File name too long); correct the path')
    assert (
        refusal('https://a.b/c.jpg') == 'image https://a.b/c.jpg is an address; download it and name the file'
    )
    assert refusal(None) == (
        'an image must be a path, a PIL image or an array, but is a NoneType; '
        'open it with PIL.Image.open first'
    )


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'gif', 'webp', 'tif', 'bmp'])
def test_a_truncated_file_is_refused_in_a_sentence(tmp_path, suffix, capfd):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(noise).save(stream, {'jpg': 'JPEG', 'tif': 'TIFF'}.get(suffix, suffix.upper()))
    whole = stream.getvalue()
    path = tmp_path / f'a.{suffix}'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for share in (0.1, 0.5, 0.9):
            path.write_bytes(whole[: int(len(whole) * share)])
            pattern = rf'image {path} is (damaged \(.+\)|no image of a known format, .+); replace it'
            assert re.fullmatch(pattern, refusal(path)), refusal(path)
    assert capfd.readouterr() == ('', '')


def test_damaged_bytes_never_end_in_anything_but_a_sentence(tmp_path):
    rng = np.random.default_rng(0)
    sentences = []
    for kind in ('PNG', 'JPEG', 'TIFF', 'GIF', 'BMP', 'WEBP', 'PPM', 'TGA', 'JPEG2000', 'ICO', 'PCX', 'SGI'):
        stream = io.BytesIO()
        Image.fromarray(picture(32, 32)).save(stream, kind)
        for _ in range(15):
            broken = np.frombuffer(stream.getvalue(), np.uint8).copy()
            broken[rng.integers(0, len(broken), 12)] = rng.integers(0, 256, 12)
            broken[rng.integers(0, min(64, len(broken)), 3)] = rng.integers(0, 256, 3)
            path = tmp_path / 'broken'
            path.write_bytes(broken.tobytes())
            try:
                assert read_image(path, max_pixels=10_000_000).pixels.shape[2] == 3
            except VlsamError as error:
                sentences.append(str(error))
    assert len(sentences) > 60
    assert all(re.fullmatch(f'image {path} .+', sentence) for sentence in sentences)


def png_claiming(width, height):
    """A PNG whose header claims a size that its few bytes do not hold."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, 'big') + body + zlib.crc32(body).to_bytes(4, 'big')

    header = width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + bytes([8, 2, 0, 0, 0])
    data = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'\0' * 100)) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + data


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / 'bomb.png').write_bytes(png_claiming(100_000, 100_000))
    (tmp_path / 'bomb.hdr').write_bytes(b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 100000 +X 100000\n')
    (tmp_path / 'bomb.pam').write_bytes(b'P7\nWIDTH 100000\nHEIGHT 100000\nDEPTH 3\nMAXVAL 255\nENDHDR\n')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for name in ('bomb.png', 'bomb.hdr', 'bomb.pam'):
            assert refusal(tmp_path / name) == (
                f'image {tmp_path / name} claims 100000 x 100000 pixels, more than 400 million; '
                'reduce it, or raise max_pixels if the machine has the memory'
            )
    assert 'more than 0.0005 million' in refusal(picture(), max_pixels=500)
    assert 'more than 0.0005 million' in refusal(Image.fromarray(picture()), max_pixels=500)
