"""Results come back bit for bit, and outlive a kill at any moment."""

import multiprocessing
import os
import pickle
import signal
import time
import zlib

import numpy as np
import pytest
from pycocotools import mask as rle

from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.protocols import VlsamError
from atss_ext.vlsam.store import ResultStore


def detections(seed=0, count=5, maps=True):
    """Values that a decimal or a shorter float would not hold."""
    rng = np.random.default_rng(seed)
    masks = rng.random((count, 37, 53)) < 0.4
    scores = rng.random(count).astype(np.float32)
    scores[:3] = [np.float32(1) / 3, np.nextafter(np.float32(0), np.float32(1)), -0.0]
    return Detections(
        size=(37, 53),
        boxes=rng.uniform(-1e4, 1e4, (count, 4)).astype(np.float32),
        scores=scores,
        names=['red circle', '红色的圆', 'crème "🍦"\n', 'dalm\ud800tian', ''][:count],
        run_lengths=[rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks],
        parts={'iou': rng.random(count).astype(np.float32), 'contrast': np.full(count, np.inf, np.float32)},
        maps=rng.random((count, 6, 7)).astype(np.float32) if maps else None,
        answers=[{'view': 'whole', 'question': 'What?', 'text': 'Ein Käfer 🪲'}],
    )


def assert_same(found, expected):
    assert found.size == expected.size
    assert found.names == expected.names
    assert found.run_lengths == expected.run_lengths
    assert found.answers == expected.answers
    pairs = [(found.boxes, expected.boxes), (found.scores, expected.scores)]
    assert found.parts.keys() == expected.parts.keys()
    pairs += [(found.parts[name], expected.parts[name]) for name in expected.parts]
    assert (found.maps is None) == (expected.maps is None)
    if expected.maps is not None:
        pairs.append((found.maps, expected.maps))
    for one, other in pairs:
        assert one.dtype == other.dtype == np.float32
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()


def files(folder):
    return sorted(path for path in folder.rglob('*') if path.is_file())


@pytest.mark.parametrize('maps', [False, True])
def test_results_come_back_bit_for_bit(tmp_path, maps):
    key = 'Straße/a b.jpg'
    ResultStore(tmp_path, 'f').put(key, detections(maps=maps))
    store = ResultStore(tmp_path, 'f')  # another process's
    assert_same(store.get(key), detections(maps=maps))
    np.testing.assert_array_equal(store.get(key).masks, detections(maps=maps).masks)
    assert key in store
    assert store.keys() == [key]


def test_an_image_without_objects_is_finished_too(tmp_path):
    store = ResultStore(tmp_path, 'f')
    store.put('a', Detections((4, 5)))
    assert_same(store.get('a'), Detections((4, 5)))
    assert store.get('a').boxes.shape == (0, 4)


def test_what_was_never_put_is_not_there(tmp_path):
    store = ResultStore(tmp_path / 'deep' / 'folder', 'f')
    assert store.get('a') is None
    assert 'a' not in store
    assert store.keys() == []
    assert store.failures() == {}
    assert list(store.items()) == []
    assert bool(store)  # `if store:` asks whether there is one


def test_keys_that_no_file_name_could_be(tmp_path):
    keys = ['a', 'A', '../../etc/passwd', '/abs/b.jpg', 'x' * 5000, 'nul\0', 'CON', '', 'ü\ud800', 'b/', 'b']
    store = ResultStore(tmp_path / 'store', 'f')
    for number, key in enumerate(keys):
        store.put(key, detections(number, maps=False))
    for number, key in enumerate(keys):
        assert_same(store.get(key), detections(number, maps=False))
    assert store.keys() == sorted(keys)
    assert [key for key, _ in store.items()] == sorted(keys)
    assert [path.name for path in tmp_path.iterdir()] == ['store']


def test_a_later_result_takes_the_place_of_an_earlier_one(tmp_path):
    store = ResultStore(tmp_path, 'f')
    store.put('a', detections(1))
    store.put('b', detections(3))
    store.put('a', detections(2))
    assert_same(store.get('a'), detections(2))
    assert_same(store.get('b'), detections(3))
    assert len(files(tmp_path)) == 1 + 2 * 2  # old maps are gone
    store.put('a', detections(2, maps=False))
    assert_same(store.get('a'), detections(2, maps=False))
    assert len(files(tmp_path)) == 1 + 1 + 2


def test_failures_are_told_until_there_is_a_result(tmp_path):
    store = ResultStore(tmp_path, 'f')
    store.fail('a', 'image a is empty; replace it')
    store.fail('b', 'image b is grün')
    assert store.failures() == {'a': 'image a is empty; replace it', 'b': 'image b is grün'}
    assert store.get('a') is None
    assert 'a' not in store
    assert store.keys() == []
    store.put('a', detections())
    assert store.failures() == {'b': 'image b is grün'}
    store.fail('a', 'no memory')  # a second try never harms the first
    assert_same(store.get('a'), detections())
    assert list(ResultStore(tmp_path, 'f').failures()) == ['b']


def test_other_settings_are_refused_in_a_sentence(tmp_path):
    store = ResultStore(tmp_path, 'old')
    store.put('a', detections())
    store.fail('b', 'no')
    with pytest.raises(VlsamError) as caught:
        ResultStore(tmp_path, 'new')
    assert str(caught.value) == (
        f'folder {tmp_path} has results of other settings; choose another folder, or forget them with '
        '--restart (restart=True)'
    )
    assert_same(ResultStore(tmp_path, 'old').get('a'), detections())
    (tmp_path / 'mine.txt').write_text('kept')
    new = ResultStore(tmp_path, 'new', restart=True)
    assert new.keys() == []
    assert new.failures() == {}
    assert [path.name for path in files(tmp_path)] == ['mine.txt', 'store.json']
    new.put('a', detections())
    with pytest.raises(VlsamError):
        ResultStore(tmp_path, 'old')
    (tmp_path / 'store.json').write_bytes(b'')
    with pytest.raises(VlsamError, match='has results of other settings'):
        ResultStore(tmp_path, 'new')


def test_a_folder_without_results_is_for_the_next_settings(tmp_path):
    """Whoever mistyped a setting, and so got no result, is not asked to forget any."""
    ResultStore(tmp_path, 'mistyped').fail('a', 'no such model')
    store = ResultStore(tmp_path, 'right')
    assert store.failures() == {}
    store.put('a', detections())
    with pytest.raises(VlsamError, match='other settings'):
        ResultStore(tmp_path, 'mistyped')


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(VlsamError, match=r'file/store cannot be written \(.+\); choose another folder'):
        ResultStore(tmp_path / 'file/store', 'f')


def test_every_damage_means_not_finished(tmp_path):
    store = ResultStore(tmp_path, 'f')
    store.put('a', detections())
    store.put('b', detections(1))
    for place in [path for path in files(tmp_path) if path.name != 'store.json']:
        whole = place.read_bytes()
        cuts = [whole[: len(whole) * n // 7] for n in range(7)]
        flips = [
            whole[:n] + bytes([whole[n] ^ 4]) + whole[n + 1 :] for n in range(0, len(whole), len(whole) // 40)
        ]
        for damaged in (*cuts, *flips, b'[]\n', b'{"crc": 0}\n', b'\xff\xfe'):
            place.write_bytes(damaged)
            got = [store.get(key) for key in ('a', 'b')]
            # A flip in a header may leave a file that is still whole, under another key or without its maps.
            assert sum(found is not None for found in got) == 1, (place, damaged[:80])
            assert_same(*((got[0], detections()) if got[0] else (got[1], detections(1))))
            store.keys()
        place.unlink()
        assert sum(store.get(key) is not None for key in ('a', 'b')) == 1
        place.write_bytes(whole)
    assert_same(store.get('a'), detections())
    assert_same(store.get('b'), detections(1))


def test_a_file_in_the_place_of_another_is_not_taken_for_it(tmp_path):
    store = ResultStore(tmp_path, 'f')
    store.put('a', detections(maps=False))
    (place,) = tmp_path.rglob('??/*.json')
    store.put('b', detections(1, maps=False))
    (other,) = set(tmp_path.rglob('??/*.json')) - {place}
    other.write_bytes(place.read_bytes())
    assert store.get('b') is None
    assert 'b' not in store
    assert_same(store.get('a'), detections(maps=False))


def test_a_pickle_in_the_place_of_maps_is_not_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'sprung'),)

    store = ResultStore(tmp_path, 'f')
    store.put('a', detections())
    (maps,) = tmp_path.rglob('*.npz')
    (header,) = tmp_path.rglob('??/*.json')
    data = pickle.dumps(Trap())
    trap = maps.with_name(maps.name.split('.')[0] + f'.{zlib.crc32(data):08x}.npz')
    trap.write_bytes(data)
    header.write_bytes(header.read_bytes().replace(maps.name.encode(), trap.name.encode()))
    assert store.get('a') is None
    assert not (tmp_path / 'sprung').exists()


# Killed


def start(work, *arguments):
    """A process that can be killed; forked, because a new one would import for seconds."""
    process = multiprocessing.get_context('fork').Process(target=work, args=arguments)
    process.start()
    return process


def put_until(folder, steps):
    """Put two results and die at the rename after ``steps`` of them."""
    store, replace, left = ResultStore(folder, 'f'), os.replace, [steps]

    def counted(*places):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*places)

    os.replace = counted
    store.put('again', detections(3))
    store.put('second', detections(4))


def put_without_end(folder, said):
    store = ResultStore(folder, 'f')
    for number in range(10**6):
        store.put(str(number), detections(number % 50))
        os.write(said, b'%d\n' % number)


# A result with maps is two files; each is renamed once.
@pytest.mark.parametrize(
    ('steps', 'again', 'second'), [(0, 2, None), (1, 2, None), (2, 3, None), (3, 3, None), (4, 3, 4)]
)
def test_a_kill_in_the_middle_of_put_leaves_a_whole_store(tmp_path, steps, again, second):
    store = ResultStore(tmp_path, 'f')
    store.put('first', detections(1))
    store.put('again', detections(2))
    process = start(put_until, tmp_path, steps)
    process.join(60)
    assert process.exitcode == (0 if steps == 4 else -signal.SIGKILL)
    store = ResultStore(tmp_path, 'f')
    assert_same(store.get('first'), detections(1))
    assert_same(store.get('again'), detections(again))
    if second is None:
        assert store.get('second') is None
        assert store.keys() == ['again', 'first']
    else:
        assert_same(store.get('second'), detections(second))
    store.put('second', detections(4))  # and the run goes on
    assert_same(store.get('second'), detections(4))
    ResultStore(tmp_path, 'g', restart=True)
    assert [path.name for path in files(tmp_path)] == ['store.json']  # what was half written is gone, too


def test_processes_write_at_once_until_they_are_killed(tmp_path):
    ends, processes = [], []
    for _ in range(2):
        reading, said = os.pipe()
        processes.append(start(put_without_end, tmp_path, said))
        os.close(said)
        ends.append(reading)
    finished = 0
    for reading, process in zip(ends, processes, strict=True):
        assert os.read(reading, 2) == b'0\n'  # both are at work
        time.sleep(0.3)
        process.kill()
        process.join()
        with open(reading) as lines:
            finished = max([finished, *(int(line) for line in lines.read().splitlines())])
    store = ResultStore(tmp_path, 'f')
    keys = store.keys()
    assert len(keys) > 20
    assert {str(number) for number in range(finished + 1)} <= set(keys)  # whatever was said to be done
    for key in keys:
        assert_same(store.get(key), detections(int(key) % 50))
