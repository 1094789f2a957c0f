"""Texts are encoded once: in this process, and with a folder in all that come."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.naming.encoder import TextEncoder
from atss_ext.vlsam.atomic import replacing


class CachedEncoder:
    """An encoder that remembers.

    Args:
        encoder: encodes what is not known yet.
        folder: keeps a file an encoder, by its key: embeddings and their texts as safetensors; None keeps
            nothing beyond this process. Files are replaced as a whole, so that processes may share a folder.

    Raises:
        DataError: a file in the folder is damaged.
    """

    def __init__(self, encoder: TextEncoder, folder: str | Path | None = None) -> None:
        self.encoder = encoder
        self.folder = Path(folder) if folder is not None else None
        self._known: dict[str, Tensor] = {}
        self._read = False

    @property
    def key(self) -> str:
        """The encoder's."""
        return self.encoder.key

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode N texts, float32 [N, D]; only new ones cost anything."""
        if not self._read:
            self._known.update(self._load())
            self._read = True
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self.encoder.encode(new), strict=True))
            self._save()
        return torch.stack([self._known[text] for text in texts]) if texts else torch.zeros(0, 0)

    @property
    def path(self) -> Path | None:
        """The file, if there is a folder."""
        if self.folder is None:
            return None
        return self.folder / f'{hashlib.sha256(self.key.encode()).hexdigest()[:16]}.safetensors'

    def _load(self) -> dict[str, Tensor]:
        path = self.path
        if path is None or not path.is_file():
            return {}
        # Here, because most who import the package have no encoder, and none of an encoder's libraries.
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, 'pt') as file:
                texts = json.loads(file.metadata()['texts'])
                return dict(zip(texts, file.get_tensor('embeddings'), strict=True))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise DataError(f'the cache {path} is damaged ({error}); remove that file') from error

    def _save(self) -> None:
        path = self.path
        if path is None:
            return
        from safetensors.torch import save

        # What another process has added meanwhile is kept.
        self._known = {**self._load(), **self._known}
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {'encoder': self.key, 'texts': json.dumps(list(self._known))}
        content = save({'embeddings': torch.stack(list(self._known.values()))}, metadata)
        with replacing(path, 'wb') as file:
            file.write(content)
