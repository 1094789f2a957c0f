"""One run of ``tools/vlsam.py``: its settings, its models, an image of it, its files."""

import hashlib
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from atss_ext.cli.errors import UserError, first_line, note
from atss_ext.cli.open_ended.counter import Counter
from atss_ext.cli.options import config_path, read_config
from atss_ext.vlsam import Detections, Pipeline, VlsamError
from atss_ext.vlsam.export import to_coco, to_yolo_boxes, to_yolo_polygons
from atss_ext.vlsam.images import Source
from atss_ext.vlsam.loading import build, load
from atss_ext.vlsam.store import ResultStore

FORMATS = ('coco', 'yolo-boxes', 'yolo-polygons')


@dataclass(frozen=True)
class Job:
    """One run of the command.

    Attributes:
        source: an image, a folder or a video.
        out: folder of all that is written.
        config: a config file, or None where ``vlm`` and ``segmenter`` are named.
        vlm: name of a vision-language model.
        segmenter: name of a segmenter.
        device: where the models run.
        settings: of the steps, from the options of the command.
        options: ``--cfg-options``: dotted key to value.
        formats: of :data:`FORMATS`.
        pictures: draw an overlay an image.
        recursive: look into subfolders.
        every: of a video, every Nth frame; None: one a second.
        restart: forget earlier results.
    """

    source: Path
    out: Path
    config: str | None
    vlm: str | None
    segmenter: str | None
    device: str = 'auto'
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = ('coco',)
    pictures: bool = True
    recursive: bool = False
    every: int | None = None
    restart: bool = False

    @cached_property
    def model(self) -> dict[str, Any]:
        """The model's config with all settings in it; results of a folder belong to one of these."""
        if self.config:
            model = read_config(config_path(self.config)).get('model') or {}
            cfg = Config({'model': model})
        else:
            cfg = Config({'model': {'vlm': self.vlm, 'segmenter': self.segmenter}})
        cfg.merge_from_dict(
            {f'model.{key}': value for key, value in {**self.settings, **self.options}.items()}
        )
        return cfg.model.to_dict()

    @property
    def fingerprint(self) -> str:
        """Differs wherever results may."""
        return hashlib.sha256(repr(sorted(self.model.items())).encode()).hexdigest()

    @cached_property
    def pipeline(self) -> Pipeline:
        """Loaded when the first image needs it."""
        note(
            f'loading the models of {self.config}'
            if self.config
            else f'loading {self.vlm} and {self.segmenter}'
        )
        init_default_scope('mmdet')
        try:
            return build(self.model, self.device) if self.config else load(**self.model, device=self.device)
        except ValueError as error:  # a setting our classes refuse; the message is a sentence
            raise UserError(str(error)) from error


def attempt(job: Job, store: ResultStore, name: str, source: Source, counter: Counter) -> Detections | None:
    """One image: what is kept of an earlier run, or found now; a failure is said, kept and passed over."""
    found = store.get(name)
    if found is not None:
        counter.known(name)
        return found
    pipeline = job.pipeline  # models that cannot be loaded end the run
    started = time.monotonic()
    try:
        found = pipeline(source)
    except Exception as error:  # one image must not end a run of hours
        reason = (
            str(error) if isinstance(error, VlsamError) else f'{type(error).__name__}: {first_line(error)}'
        )
        store.fail(name, reason)
        if not isinstance(error, VlsamError):
            with open(job.out / 'errors.log', 'a', encoding='utf-8') as log:
                log.write(f'{name}\n{traceback.format_exc()}\n')
        counter.fault(name, reason)
        return None
    store.put(name, found)
    counter.done(name, found, time.monotonic() - started)
    return found


def export(
    job: Job, store: ResultStore, names: list[str], tracks: Mapping[str, list[int]] | None = None
) -> None:
    """Write what is there in every format that was asked for; ``tracks`` are the numbers of objects."""

    def items() -> Iterator[tuple[str, Detections]]:
        for name in names:
            found = store.get(name)
            if found is not None:
                yield name, found

    writers = {
        'coco': lambda: to_coco(items(), job.out / 'annotations.json', tracks=tracks),
        'yolo-boxes': lambda: to_yolo_boxes(items(), job.out / 'yolo-boxes'),
        'yolo-polygons': lambda: to_yolo_polygons(items(), job.out / 'yolo-polygons'),
    }
    for name in job.formats:
        writers[name]()
