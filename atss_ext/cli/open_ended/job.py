"""One run of ``tools/vlsam.py``: its settings, its models, an image of it, its files."""

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from atss_ext.cli.errors import note
from atss_ext.cli.open_ended.counter import Counter
from atss_ext.cli.options import config_path, read_config
from atss_ext.errors import UserError, first_line
from atss_ext.vlsam import Detections, Pipeline, VlsamError
from atss_ext.vlsam.export import to_coco, to_yolo_boxes, to_yolo_polygons
from atss_ext.vlsam.fingerprints import fingerprint
from atss_ext.vlsam.images import Source, read_image, to_original
from atss_ext.vlsam.loading import build
from atss_ext.vlsam.options import PipelineOptions
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
        else:
            model = {
                'type': 'atss_ext.VLSAM',
                'vlm': {'type': 'atss_ext.TransformersVLM', 'model': self.vlm},
                'segmenter': {'type': 'atss_ext.TransformersSegmenter', 'model': self.segmenter},
            }
        cfg = Config({'model': model})
        changes = {**self.settings, **self.options}
        cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
        return {key: value for key, value in cfg.model.to_dict().items() if key != 'store'}

    @cached_property
    def steps(self) -> PipelineOptions:
        """The settings of the steps.

        Raises:
            UserError: one is unknown or out of range.
        """
        parts = ('type', 'vlm', 'segmenter', 'data_preprocessor')
        try:
            return PipelineOptions.from_mapping({k: v for k, v in self.model.items() if k not in parts})
        except (TypeError, ValueError) as error:
            raise UserError(str(error)) from error

    @property
    def fingerprint(self) -> str:
        """Differs wherever results may."""
        return fingerprint(self.model.get('vlm'), self.model.get('segmenter'), self.steps)

    @cached_property
    def pipeline(self) -> Pipeline:
        """Loaded when the first image needs it."""
        what = f'the models of {self.config}' if self.config else f'{self.vlm} and {self.segmenter}'
        note(f'loading {what}')
        init_default_scope('mmdet')
        try:
            return build(self.model, self.device)
        except ValueError as error:  # a value our classes refuse; the message is a sentence
            raise UserError(str(error)) from error


def key_of(path: Path, name: str) -> str:
    """What an image's result is kept under: another file, or the same one changed, is another image."""
    about = path.stat() if path.exists() else None
    return f'{name} {about.st_size} {about.st_mtime_ns}' if about else name


def attempt(
    job: Job, store: ResultStore, name: str, key: str, source: Source, counter: Counter
) -> Detections | None:
    """One image: what is kept of an earlier run, or found now; a failure is said, kept and passed over."""
    found = store.get(key)
    if found is not None:
        counter.known(name)
        return found
    try:
        loaded = read_image(source, max_side=job.steps.max_side)
    except VlsamError as error:
        _fail(store, name, key, str(error), counter)
        return None
    pipeline = job.pipeline  # models that cannot be loaded end the run; images are looked at before
    started = time.monotonic()
    try:
        found = to_original(pipeline.detect(loaded.pixels), loaded)
    except VlsamError as error:
        _fail(store, name, key, str(error), counter)
        return None
    except Exception as error:  # one image must not end a run of hours
        with open(job.out / 'errors.log', 'a', encoding='utf-8') as log:
            log.write(f'{name}\n{traceback.format_exc()}\n')
        _fail(store, name, key, f'{type(error).__name__}: {first_line(error)}', counter)
        return None
    store.put(key, found)
    counter.done(name, found, time.monotonic() - started)
    return found


def _fail(store: ResultStore, name: str, key: str, reason: str, counter: Counter) -> None:
    store.fail(key, reason)
    counter.fault(name, reason)


@contextlib.contextmanager
def exporting(export: Callable[[], None]) -> Iterator[None]:
    """Export when the block ends, also where it fails; what ended it stays the last word."""
    try:
        yield
    except BaseException:
        try:
            export()
        except Exception as error:
            note(f'what was found is kept, but not exported ({first_line(error)})')
        raise
    export()


def export(
    job: Job, store: ResultStore, keys: Mapping[str, str], tracks: Mapping[str, list[int]] | None = None
) -> None:
    """Write what is there in every format that was asked for.

    Args:
        job: the run.
        store: of its results.
        keys: of the images, by name.
        tracks: of a video, the numbers of each frame's objects.
    """

    def items() -> Iterator[tuple[str, Detections]]:
        for name, key in keys.items():
            found = store.get(key)
            if found is not None:
                yield name, found

    writers = {
        'coco': lambda: to_coco(items(), job.out / 'annotations.json', tracks=tracks),
        'yolo-boxes': lambda: to_yolo_boxes(items(), job.out / 'yolo-boxes'),
        'yolo-polygons': lambda: to_yolo_polygons(items(), job.out / 'yolo-polygons'),
    }
    for name in job.formats:
        writers[name]()
