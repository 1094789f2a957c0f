"""VL-SAM in three lines: from a config, or from the names of two models."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atss_ext.vlsam.options import PipelineOptions
from atss_ext.vlsam.pipeline import Pipeline
from atss_ext.vlsam.protocols import Segmenter, VisionLanguageModel, VlsamError
from atss_ext.vlsam.segmenter import TransformersSegmenter
from atss_ext.vlsam.vlm import TransformersVLM


def load(
    vlm: str | os.PathLike[str] | VisionLanguageModel,
    segmenter: str | Segmenter | None = None,
    device: str = 'auto',
    **settings: Any,
) -> Pipeline:
    """Build VL-SAM.

    .. code-block:: python

        vlsam = load('llava-hf/llava-1.5-7b-hf', 'facebook/sam-vit-huge')
        found = vlsam('street.jpg')
        print(found.names, found.scores, found.boxes, found.masks)

    Args:
        vlm: a config file of ``configs/vlsam`` (``segmenter`` is left out then), or the name or folder of a
            vision-language model for transformers, or a model of one's own.
        segmenter: the name or folder of a SAM for transformers, or a segmenter of one's own.
        device: 'auto' takes a GPU where there is one.
        **settings: of the steps, as :class:`options.PipelineOptions` names them; with a config they change
            what it says.

    Returns:
        the pipeline: call it on a path, a PIL image or an RGB array.

    Raises:
        VlsamError: a model or config that cannot be loaded.
        ValueError: a setting is unknown or out of range.
    """
    if isinstance(vlm, str | os.PathLike) and str(vlm).endswith('.py'):
        if segmenter is not None:
            raise VlsamError(
                f'{vlm} is a config and names its segmenter itself; leave segmenter={segmenter!r} away, or '
                'set model.segmenter in the config.'
            )
        return _from_config(Path(vlm), device, settings)
    if segmenter is None:
        raise VlsamError(
            f"load({str(vlm)!r}) needs a segmenter too, such as segmenter='facebook/sam-vit-huge', or a "
            'config file that ends in .py.'
        )
    return Pipeline(
        TransformersVLM(str(vlm), device=device) if isinstance(vlm, str | os.PathLike) else vlm,
        TransformersSegmenter(segmenter, device=device) if isinstance(segmenter, str) else segmenter,
        PipelineOptions.from_mapping(settings),
    )


def _from_config(path: Path, device: str, settings: Mapping[str, Any]) -> Pipeline:
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    if not path.is_file():
        raise VlsamError(f'config {path} does not exist; correct its path.')
    cfg = Config.fromfile(path)
    if 'VLSAM' not in str((cfg.get('model') or {}).get('type')):
        raise VlsamError(f'config {path} is not one of VL-SAM; take one of configs/vlsam.')
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    cfg.merge_from_dict({'model': dict(settings)})
    return build(cfg.model, device)


def build(model: Mapping[str, Any], device: str = 'auto') -> Pipeline:
    """The pipeline of a model's config, ``dict(type='atss_ext.VLSAM', ...)``."""
    from atss_ext.registry import MODELS

    detector = MODELS.build(dict(model))
    if device != 'auto':
        detector.to(device)
    pipeline: Pipeline = detector.pipeline
    return pipeline
