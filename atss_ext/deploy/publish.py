"""A checkpoint stripped to what others need: weights, config and class names, as one safetensors file."""

import ast
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor

from atss_ext.compat.published import SUFFIX, described, fingerprint
from atss_ext.deploy.checkpoint import Checkpoint, read_checkpoint
from atss_ext.deploy.detector import build_detector, dataset_meta_of, require_match
from atss_ext.deploy.files import finished
from atss_ext.errors import UserError, first_line
from atss_ext.version import __version__

# Of the machine and the run, not of the model.
_RUN_KEYS = ('work_dir', 'load_from', 'resume', 'launcher')


class Published(NamedTuple):
    """What was written.

    Attributes:
        path: the file.
        tensors: how many.
        numbers: how many values they hold.
        classes: names, in the order of the labels.
        sha256: of the tensors (:func:`atss_ext.compat.published.fingerprint`).
    """

    path: Path
    tensors: int
    numbers: int
    classes: tuple[str, ...]
    sha256: str


def publish(checkpoint: str, out: Path, cfg: Config | None = None, hash_name: bool = False) -> Published:
    """Write the weights of a checkpoint, and what says how to use them.

    The weights are those that mmengine tests with: where ``EMAHook`` trained along, its averages, which it
    saves as ``state_dict``. The same input gives the same bytes.

    Args:
        checkpoint: a file of ``torch.save``, read without running what it holds.
        out: a name ending in .safetensors.
        cfg: its config; otherwise the text that the checkpoint keeps is taken. With one, the weights have to
            fit the model.
        hash_name: put the first eight digits of the hash into the name, as mmdet does.

    Raises:
        UserError: the checkpoint cannot be read, has no weights, class names or config, or does not fit; or
            the file cannot be written.
    """
    if out.suffix != SUFFIX:
        raise UserError(f'--out {out}: the name has to end in {SUFFIX}')
    kept = read_checkpoint(checkpoint)
    # Copies: tensors of a checkpoint may share memory, which the format does not know.
    tensors = {
        name: value.to(memory_format=torch.contiguous_format, copy=True)
        for name, value in kept.tensors.items()
    }
    if cfg is not None:
        require_match(build_detector(cfg), tensors, checkpoint)
    dataset_meta = _dataset_meta(kept, cfg, checkpoint)
    sha256 = fingerprint(tensors)
    metadata = {
        'atss_ext': __version__,
        'config': _config_text(kept, cfg, checkpoint),
        'dataset_meta': json.dumps(dataset_meta, ensure_ascii=False, sort_keys=True),
        'format': 'pt',
        'sha256': sha256,
    }
    if hash_name:
        out = out.with_name(f'{out.stem}-{sha256[:8]}{SUFFIX}')
    write_safetensors(out, tensors, metadata)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    return Published(out, len(tensors), numbers, dataset_meta['classes'], sha256)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file of which every byte follows from the arguments, whole or not at all.

    The library itself writes the metadata in an order that changes from run to run.

    Raises:
        UserError: the system refuses.
    """
    from safetensors.torch import save

    content = save(dict(tensors), dict(metadata))
    size = struct.unpack('<Q', content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    text = json.dumps(header, ensure_ascii=False, sort_keys=True, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)  # the format wants tensors aligned
    with finished(path) as unfinished:
        unfinished.write_bytes(struct.pack('<Q', len(text)) + text + content[8 + size :])


def portable_config(text: str) -> str:
    """The text of a resolved config without what belongs to the run (``work_dir``, ``load_from``).

    It is parsed, never run.
    """
    lines = text.splitlines()
    drop: set[int] = set()
    for node in ast.parse(text).body:
        names = [target.id for target in getattr(node, 'targets', ()) if isinstance(target, ast.Name)]
        if set(names) & set(_RUN_KEYS):
            drop |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
    return '\n'.join(line for number, line in enumerate(lines) if number not in drop) + '\n'


def _config_text(kept: Checkpoint, cfg: Config | None, path: str) -> str:
    text = cfg.pretty_text if cfg is not None else kept.config
    if text is None:
        raise UserError(f'checkpoint {path} keeps no config; name it with --config')
    try:
        return portable_config(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # the last two: too deep
        line = getattr(error, 'lineno', None)
        place = f'line {line}' if line else first_line(error)
        raise UserError(
            f'the config that checkpoint {path} keeps cannot be read ({place}); name it with --config'
        ) from None


def _dataset_meta(kept: Checkpoint, cfg: Config | None, path: str) -> dict[str, Any]:
    if kept.dataset_meta:
        return kept.dataset_meta
    found = described(dataset_meta_of(cfg)) if cfg is not None else {}
    if not found:
        raise UserError(
            f'checkpoint {path} holds no class names (meta.dataset_meta); name its config with --config'
        )
    return found
