"""Finished images on disk, each in a file of its own, so that a killed run loses none of them."""

import contextlib
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atss_ext.vlsam.atomic import PARTIAL, partial_path, replacing, writable
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.protocols import VlsamError
from atss_ext.vlsam.run_lengths import as_text, from_text

_DONE, _FAILED, _MAPS = '.json', '.failed', '.npz'
_ABOUT = 'store.json'


class ResultStore:
    """Keeps the result of every finished image below a folder.

    Every file is whole or not there, whatever kills the process, and several processes may write different
    images at once. Files are JSON (and arrays without objects): reading them runs nothing.

    Args:
        folder: made if absent.
        fingerprint: of the settings; results of others are never mixed in. A folder without any result
            belongs to whoever asks.
        restart: forget the results that are there. Of several processes only the first to start may.

    Raises:
        VlsamError: the folder has results of another fingerprint, or cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: str, restart: bool = False) -> None:
        self.folder, self.fingerprint = Path(folder), fingerprint
        with writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if restart:
                self._clear()
            self._claim()
            if self._claimed_by() != fingerprint and not self.keys():  # a run that never got to a result
                self._clear()
                self._claim()
        if self._claimed_by() != fingerprint:
            raise VlsamError(
                f'folder {self.folder} has results of other settings; choose another folder, or forget them '
                'with --restart (restart=True)'
            )

    def get(self, key: str) -> Detections | None:
        """The result of an image as it was put; None where it is not finished, or its file is damaged."""
        found = _read(self._place(key, _DONE))
        if found is None or found[0].get('key') != key:
            return None
        try:
            detections = from_json(json.loads(found[1]))
            if found[0]['maps'] is not None:
                detections.maps = _load_maps(self._place(key, '').with_name(found[0]['maps']))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        return detections

    def put(self, key: str, found: Detections) -> None:
        """Keep the result of an image; from now on it is finished.

        Args:
            key: the image's path or id.
            found: its objects; attention maps are kept too, where there are any.
        """
        maps = None if found.maps is None else self._put_maps(key, found.maps)
        body = json.dumps(as_json(found), separators=(',', ':')).encode('ascii')
        header = {'key': key, 'crc': zlib.crc32(body), 'maps': maps}
        with replacing(self._place(key, _DONE), 'wb') as file:
            file.write(json.dumps(header).encode('ascii') + b'\n' + body)
        self._place(key, _FAILED).unlink(missing_ok=True)
        for other in self._siblings(key):
            if other.suffix == _MAPS and other.name != maps:  # of an earlier result
                other.unlink(missing_ok=True)

    def fail(self, key: str, sentence: str) -> None:
        """Note why an image has no result; it stays unfinished, and an earlier result stays as it is."""
        with replacing(self._place(key, _FAILED)) as file:
            json.dump({'key': key, 'error': sentence}, file)

    def keys(self) -> list[str]:
        """Keys of all finished images, sorted."""
        found = (_read(path) for path in self._files(_DONE))
        return sorted(entry[0]['key'] for entry in found if entry is not None and 'key' in entry[0])

    def __contains__(self, key: str) -> bool:
        found = _read(self._place(key, _DONE))
        return found is not None and found[0].get('key') == key

    def items(self) -> Iterator[tuple[str, Detections]]:
        """(key, result) of all finished images, in the order of :meth:`keys`, one in memory at a time."""
        for key in self.keys():
            found = self.get(key)
            if found is not None:
                yield key, found

    def failures(self) -> dict[str, str]:
        """Why images have no result: key -> sentence; without those that have got one since."""
        reasons = {}
        for path in sorted(self._files(_FAILED)):
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                entry = json.loads(path.read_bytes())
                if entry['key'] not in self:
                    reasons[entry['key']] = entry['error']
        return reasons

    def _place(self, key: str, suffix: str) -> Path:
        # File names are hashes: keys may be longer than a name, or differ in case alone.
        name = hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:40]
        return self.folder / name[:2] / f'{name[2:]}{suffix}'

    def _siblings(self, key: str) -> list[Path]:
        place = self._place(key, '')
        return list(place.parent.glob(f'{place.name}.*'))

    def _files(self, suffix: str) -> Iterator[Path]:
        return self.folder.glob(f'[0-9a-f][0-9a-f]/[0-9a-f]*{suffix}')

    def _put_maps(self, key: str, maps: NDArray[np.float32]) -> str:
        """Write the maps under a name that follows from what they hold, so that no result loses its own."""
        stream = io.BytesIO()
        np.savez_compressed(stream, maps=maps)
        data = stream.getvalue()
        place = self._place(key, f'.{zlib.crc32(data):08x}{_MAPS}')
        with replacing(place, 'wb') as file:
            file.write(data)
        return place.name

    def _clear(self) -> None:
        for pattern in (f'[0-9a-f]*{_DONE}', f'[0-9a-f]*{_FAILED}', f'[0-9a-f]*{_MAPS}', f'.*{PARTIAL}'):
            for path in self.folder.glob(f'[0-9a-f][0-9a-f]/{pattern}'):
                path.unlink(missing_ok=True)
        # Last: until all are gone, what is left belongs to the old settings.
        (self.folder / _ABOUT).unlink(missing_ok=True)

    def _claim(self) -> None:
        """Write whose results these are, unless someone has."""
        about = self.folder / _ABOUT
        if about.exists():
            return
        partial = partial_path(self.folder)
        partial.write_text(json.dumps({'format': 1, 'fingerprint': self.fingerprint}), encoding='utf-8')
        try:
            os.link(partial, about)  # unlike a rename, it never takes the place of another's
        except FileExistsError:
            pass
        except OSError:  # no hard links here
            os.replace(partial, about)
        finally:
            partial.unlink(missing_ok=True)

    def _claimed_by(self) -> str | None:
        try:
            return json.loads((self.folder / _ABOUT).read_bytes())['fingerprint']
        except (OSError, ValueError, LookupError, TypeError):
            return None


def as_json(found: Detections) -> dict[str, Any]:
    """Detections without their maps as JSON holds them; every float32 comes back bit for bit."""
    return {
        'size': [int(side) for side in found.size],
        'boxes': found.boxes.tolist(),
        'scores': found.scores.tolist(),
        'names': list(found.names),
        'run_lengths': [as_text(run_length) for run_length in found.run_lengths],
        'parts': {name: values.tolist() for name, values in found.parts.items()},
        'answers': list(found.answers),
    }


def from_json(content: dict[str, Any]) -> Detections:
    """The reverse of :func:`as_json`.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: the content is something else.
    """
    height, width = content['size']
    return Detections(
        size=(int(height), int(width)),
        boxes=np.array(content['boxes'], np.float32).reshape(-1, 4),
        scores=np.array(content['scores'], np.float32),
        names=list(content['names']),
        run_lengths=[from_text(run_length) for run_length in content['run_lengths']],
        parts={name: np.array(values, np.float32) for name, values in content['parts'].items()},
        answers=list(content['answers']),
    )


def _read(path: Path) -> tuple[dict[str, Any], bytes] | None:
    """(header, body) of a file that is whole."""
    try:
        first, _, body = path.read_bytes().partition(b'\n')
        header = json.loads(first)
        whole = header['crc'] == zlib.crc32(body)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return (header, body) if whole else None


def _load_maps(path: Path) -> NDArray[np.float32]:
    data = path.read_bytes()
    if path.suffixes[0] != f'.{zlib.crc32(data):08x}':
        raise ValueError(f'{path} is damaged')
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return arrays['maps']
