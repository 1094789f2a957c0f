"""Folders of images and frames of videos."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from atss_ext.vlsam.images import frames, is_video, list_images
from atss_ext.vlsam.protocols import VlsamError


def test_images_of_a_folder_come_in_natural_order(tmp_path):
    names = ['img10.jpg', 'img2.JPG', 'img1.png', 'B.png', 'a.png', 'sub/2.png', 'sub/10.png', '.hidden.png']
    names += ['words.txt', 'sub/.git/a.png', 'film.mp4', 'noSuffix']
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'broken.png').symlink_to(tmp_path / 'absent.png')
    (tmp_path / 'folder.png').mkdir()
    flat = ['a.png', 'B.png', 'img1.png', 'img2.JPG', 'img10.jpg']
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == flat
    deep = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path, recursive=True)]
    assert deep == [*flat, 'sub/2.png', 'sub/10.png']
    assert list_images(str(tmp_path / 'a.png')) == [tmp_path / 'a.png']


def test_folders_without_images_are_refused_in_a_sentence(tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub/a.png').touch()
    with pytest.raises(VlsamError, match=r'itself has no image .*; name another folder'):
        list_images(tmp_path)
    with pytest.raises(VlsamError, match=re.escape(f'{tmp_path / "no"} does not exist; correct the path')):
        list_images(tmp_path / 'no')


@pytest.fixture(scope='module')
def video(tmp_path_factory) -> Path:
    """25 frames, 10 a second; frame n is grey of 8 n."""
    path = tmp_path_factory.mktemp('video') / 'film.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    assert writer.isOpened()
    for number in range(25):
        frame = np.full((48, 64, 3), 8 * number, np.uint8)
        frame[:, :16] = (0, 0, 255)  # BGR: red
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize(('every', 'step'), [(1, 1), (3, 3), (24, 24), (25, 25), (1000, 1000), (None, 10)])
def test_frames_come_with_index_and_time(video, every, step):
    found = list(frames(video, every))
    assert [frame.index for frame in found] == list(range(0, 25, step))
    for frame in found:
        assert frame.time == pytest.approx(frame.index / 10)
        assert frame.pixels.shape == (48, 64, 3)
        np.testing.assert_allclose(frame.pixels[24, 40].astype(int), [8 * frame.index] * 3, atol=4)
        np.testing.assert_allclose(frame.pixels[24, 4].astype(int), [255, 0, 0], atol=8)
        assert frame.total == len(found)
        assert frame.rate == pytest.approx(10 / step)


def test_a_video_is_closed_where_it_is_left(video):
    def open_files():
        return sum(os.path.realpath(f'/proc/self/fd/{n}') == str(video) for n in os.listdir('/proc/self/fd'))

    stream = frames(video)
    next(stream)
    assert open_files() == 1
    stream.close()
    assert open_files() == 0


def test_a_truncated_video_gives_the_frames_it_has(video, tmp_path):
    (tmp_path / 'cut.avi').write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 4])
    whole, cut = list(frames(video)), list(frames(tmp_path / 'cut.avi'))
    assert 4 <= len(cut) < 25
    for frame, expected in zip(cut[:-1], whole, strict=False):  # the last one may have been cut itself
        np.testing.assert_array_equal(frame.pixels, expected.pixels)


def test_what_is_no_video_is_refused_in_a_sentence(tmp_path, video):
    (tmp_path / 'words.mp4').write_text('I am no video.')
    (tmp_path / 'a_1.png').write_bytes(b'x')
    for name, words in {
        'absent.mp4': 'does not exist; correct the path',
        '': 'is a folder; correct the path',
        'words.mp4': 'is no video, damaged, or of an unknown codec; convert it',
        'a_1.png': 'is an image; pass it as one',
    }.items():
        with pytest.raises(VlsamError) as caught:
            frames(tmp_path / name)  # before the first frame is asked for
        assert str(caught.value) == f'video {tmp_path / name} {words}'
    with pytest.raises(ValueError, match='every must be an integer of at least 1 or None, but is 0'):
        frames(video, 0)


def test_videos_are_known_by_name():
    assert is_video('a/b.MP4')
    assert is_video(Path('b.mov'))
    assert not is_video('b.jpg')
    assert not is_video('mp4')
