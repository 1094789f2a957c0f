"""A trained detector as a file that runs without mmdet: ONNX, or ``torch.export``.

Both hold the whole way from pixels to detections. NMS is in it (ONNX' ``NonMaxSuppression``): mmdet's
suppression is one call over boxes moved apart by class, which torch's exporter translates as it stands, and
onnxruntime computes what torchvision does. Outside the graph everyone would have to write it again, and
nothing could be compared.
"""

import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from atss_ext.deploy.check import Detections, Detector, Difference, check_export
from atss_ext.deploy.files import finished
from atss_ext.deploy.graph import DetectorGraph
from atss_ext.deploy.images import SIDES, Size
from atss_ext.errors import UserError
from atss_ext.version import __version__

INPUT = 'image'
OUTPUTS = ('boxes', 'scores', 'labels')


def capture(model: nn.Module, size: Size, dynamic: bool = False) -> torch.export.ExportedProgram:
    """The detector as a graph of torch operators.

    Args:
        model: the detector, in evaluation mode.
        size: (height, width) of the image.
        dynamic: whether images may have any size of :data:`~atss_ext.deploy.images.SIDES`.

    Raises:
        UserError: the detector has a part that cannot be exported.
    """
    graph = DetectorGraph(model).eval()
    example = torch.zeros((*size, 3), dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC(min=SIDES[0], max=SIDES[1])
    shapes = {INPUT: {0: free, 1: free}} if dynamic else None
    with torch.no_grad(), _quiet():
        return torch.export.export(graph, (example,), dynamic_shapes=shapes, strict=False)


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write one ONNX file with weights and metadata inside."""
    with _quiet():
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            external_data=False,
            verbose=False,
        )
    exported.model.metadata_props.update(metadata)
    exported.save(str(path), external_data=False)


def load_onnx(path: str | os.PathLike[str]) -> Detector:
    """The detector of an ONNX file, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda image: Detections(*session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(image)}))


def write_torch_export(
    program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]
) -> None:
    """Write what ``torch.export.load`` reads; the metadata is its extra file ``metadata.json``."""
    # By way of memory: where a disk is full, torch's own writer ends the process.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={'metadata.json': json.dumps(metadata, sort_keys=True)})
    path.write_bytes(content.getbuffer())


def load_torch_export(path: str | os.PathLike[str]) -> Detector:
    """The detector of a ``.pt2`` file."""
    module = torch.export.load(path).module()

    @torch.no_grad()
    def detect(image: NDArray[np.uint8]) -> Detections:
        found = module(torch.from_numpy(np.ascontiguousarray(image)))
        return Detections(*(part.numpy() for part in found))

    return detect


Writer = Callable[[torch.export.ExportedProgram, Path, Mapping[str, str]], None]
# Name, suffix, what it needs, how it is written and how it is read.
FORMATS: dict[str, tuple[str, tuple[str, ...], Writer, Callable[..., Detector]]] = {
    'onnx': ('.onnx', ('onnx', 'onnxscript', 'onnxruntime'), write_onnx, load_onnx),
    'torch-export': ('.pt2', (), write_torch_export, load_torch_export),
}


def check_format(kind: str, out: Path) -> None:
    """Refuse what cannot be written, before any work.

    Raises:
        UserError: an unknown format, a name with another ending, or a missing package.
    """
    if kind not in FORMATS:
        raise UserError(f'--format {kind} is unknown; take {" or ".join(FORMATS)}')
    suffix, needed = FORMATS[kind][:2]
    if out.suffix != suffix:
        raise UserError(f'--out {out}: the name of a file of --format {kind} has to end in {suffix}')
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format {kind} needs {missing[0]}, which is not installed: pip install 'atss_ext[export]'"
        )


def export(
    model: nn.Module,
    classes: Sequence[str],
    kind: str,
    out: Path,
    size: Size,
    images: Sequence[NDArray[np.uint8]],
    dynamic: bool = False,
) -> Difference:
    """Write a detector, read it again, and keep the file only if it finds what mmdet's ``predict`` finds.

    Args:
        model: the detector, in evaluation mode.
        classes: names in the order of the labels.
        kind: a key of :data:`FORMATS`.
        out: the file.
        size: (height, width) of the image; with ``dynamic`` an example.
        images: [H, W, 3] BGR, to compare on.
        dynamic: whether images may have any size.

    Raises:
        UserError: the detector cannot be exported, the written file differs from it, or it cannot be written.
    """
    check_format(kind, out)
    _, _, write, load = FORMATS[kind]
    program = capture(model, size, dynamic)
    head: Any = model.bbox_head
    if head.num_classes != len(classes):
        raise UserError(f'the head has {head.num_classes} classes, but {len(classes)} class names are known')
    metadata = {'atss_ext': __version__, 'classes': json.dumps(list(classes), ensure_ascii=False)}
    with finished(out) as unfinished:
        write(program, unfinished, metadata)
        difference = check_export(load(unfinished), model, images, classes)
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """What torchvision's kernel and the exporter warn of, users can do nothing about."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
