"""VL-SAM in three lines: from a config, or from the names of two models."""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from atss_ext.errors import first_line
from atss_ext.vlsam.devices import check_device, places_itself
from atss_ext.vlsam.options import PipelineOptions
from atss_ext.vlsam.pipeline import Pipeline
from atss_ext.vlsam.protocols import Segmenter, VisionLanguageModel, VlsamError
from atss_ext.vlsam.segmenter import TransformersSegmenter
from atss_ext.vlsam.vlm import TransformersVLM


def load(
    vlm: str | os.PathLike[str] | VisionLanguageModel,
    segmenter: str | Segmenter | None = None,
    device: str | torch.device = 'auto',
    **settings: Any,
) -> Pipeline:
    """Build VL-SAM.

    .. code-block:: python

        vlsam = load('llava-hf/llava-1.5-7b-hf', 'facebook/sam-vit-huge')
        found = vlsam('street.jpg')
        print(found.names, found.scores, found.boxes, found.masks)

    Args:
        vlm: a config file of ``configs/vlsam`` (``segmenter`` is left out then; as in ``_base_``, it may be
            written ``atss_ext::vlsam/NAME.py``), or the name or folder of a vision-language model for
            transformers, or a model of one's own.
        segmenter: the name or folder of a SAM for transformers, or a segmenter of one's own.
        device: of the models that are loaded here; one whose config names its device stays there. 'auto'
            takes a GPU where there is one.
        **settings: of the steps, as :class:`options.PipelineOptions` names them; with a config they change
            what it says.

    Returns:
        the pipeline: call it on a path, a PIL image or an RGB array.

    Raises:
        VlsamError: a model or config that cannot be loaded, or a device that is not there.
        ValueError: a setting is unknown or out of range.
    """
    check_device(device)
    if isinstance(vlm, str | os.PathLike) and str(vlm).endswith('.py'):
        if segmenter is not None:
            raise VlsamError(
                f'{vlm} is a config and names its segmenter itself; leave segmenter={segmenter!r} away, or '
                'set model.segmenter in the config.'
            )
        return _from_config(str(vlm), device, settings)
    if segmenter is None:
        raise VlsamError(
            f"load({str(vlm)!r}) needs a segmenter too, such as segmenter='facebook/sam-vit-huge', or a "
            'config file that ends in .py.'
        )
    options = PipelineOptions.from_mapping(settings)  # refused, if at all, before gigabytes are loaded
    return Pipeline(
        TransformersVLM(str(vlm), device=device) if isinstance(vlm, str | os.PathLike) else vlm,
        TransformersSegmenter(segmenter, device=device) if isinstance(segmenter, str) else segmenter,
        options,
    )


def _from_config(name: str, device: str | torch.device, settings: Mapping[str, Any]) -> Pipeline:
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    path = _config_path(name)
    if not path.is_file():
        raise VlsamError(f'config {path} does not exist; correct its path.')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # whatever the code of a config may raise
        raise VlsamError(
            f'config {path} cannot be read ({type(error).__name__}: {first_line(error)}); correct it.'
        ) from error
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    if not _is_vlsam(cfg.get('model')):
        raise VlsamError(f'config {path} is not one of VL-SAM; take one of configs/vlsam.')
    cfg.merge_from_dict({'model': dict(settings)})
    return build(cfg.model, device)


def _config_path(name: str) -> Path:
    """The file of a config, which may be written ``package::path`` as in ``_base_``."""
    from mmengine.config import Config

    if '::' in name:
        try:
            name = Config._get_cfg_path(name, '')[0]
        except Exception as error:  # of many kinds, for a package or a path that is not there
            reason = ' '.join(str(error).split())
            raise VlsamError(f'config {name} cannot be found ({reason}); correct its name.') from error
    return Path(name)


def _is_vlsam(model: Any) -> bool:
    from atss_ext.registry import MODELS
    from atss_ext.vlsam.detector import VLSAM

    kind = model.get('type') if isinstance(model, Mapping) else None
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, VLSAM)


def build(model: Mapping[str, Any], device: str | torch.device = 'auto') -> Pipeline:
    """The pipeline of a model's config, ``dict(type='atss_ext.VLSAM', ...)``.

    Args:
        model: the config.
        device: where its two models are loaded to, unless their own configs name a device; 'auto' leaves it
            to them.

    Raises:
        VlsamError: the device is not there, the config is not one of VL-SAM, or a model cannot be loaded.
        ValueError: a setting is unknown or out of range.
    """
    from atss_ext.registry import MODELS

    check_device(device)
    if not _is_vlsam(model):
        kind = model.get('type')
        raise VlsamError(f'the model {kind} is not one of VL-SAM; take one of configs/vlsam.')
    parts = {name: model[name] for name in ('vlm', 'segmenter') if name in model}
    placed = {name: _place(part, device) for name, part in parts.items()}
    pipeline: Pipeline = MODELS.build({**model, **placed}).pipeline
    for name, part in parts.items():
        move = getattr(getattr(pipeline, name), 'to', None)
        # Nothing happens to those that were loaded there; others do not take a device.
        if device != 'auto' and not places_itself(part) and callable(move):
            move(device)
    return pipeline


def _place(part: Any, device: str | torch.device) -> Any:
    """Write the device into a part's config, where that leaves it open and the part's class takes one."""
    from atss_ext.registry import MODELS

    if device == 'auto' or not isinstance(part, Mapping) or places_itself(part):
        return part
    kind = part.get('type')
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    takes = callable(kind) and 'device' in inspect.signature(kind).parameters
    return {**part, 'device': device} if takes else part
