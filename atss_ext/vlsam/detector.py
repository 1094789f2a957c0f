"""VL-SAM as an mmdet detector: tested by mmdet's Runner, configured like any other model."""

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn

from atss_ext.registry import MODELS
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.devices import places_itself
from atss_ext.vlsam.fingerprints import fingerprint
from atss_ext.vlsam.images import LoadedImage, to_original
from atss_ext.vlsam.options import PipelineOptions
from atss_ext.vlsam.pipeline import Pipeline
from atss_ext.vlsam.protocols import Image, Segmenter, VisionLanguageModel, VlsamError
from atss_ext.vlsam.segmenter import PredictorSegmenter, TransformersSegmenter
from atss_ext.vlsam.store import ResultStore
from atss_ext.vlsam.vlm import TransformersVLM

for _kind in (TransformersVLM, TransformersSegmenter, PredictorSegmenter):
    MODELS.register_module(module=_kind)


@MODELS.register_module()
class VLSAM(BaseDetector):
    """Training-free open-ended detection and segmentation (Lin, Wang, Tang: VL-SAM, NeurIPS 2024).

    Takes images as the loader reads them (uint8, BGR, unpadded: a list); a test pipeline for it loads and
    packs, and does nothing else. ``pred_instances`` of a result hold ``bboxes``, ``scores``, ``labels`` (all
    0: there are no classes), ``names`` and ``masks`` (COCO run lengths). An image that fails is said, has no
    instances and carries the reason in ``vlsam_error``.

    Args:
        vlm: config of the vision-language model (``TransformersVLM`` or one's own), or one that is built.
            One whose config names a ``device``, or a ``device_map`` in its ``load_options``, stays there;
            all others move with this model.
        segmenter: config of the segmenter (``TransformersSegmenter``, ``PredictorSegmenter`` or one's own),
            as above.
        store: a folder in which each image's result is kept as soon as it is there; a run that was ended
            early goes on from them. Both models are given by config then. None keeps nothing.
        data_preprocessor: mmengine's; by default images are only moved to the device.
        init_cfg: must be None; the weights are those of the two models.
        **settings: of the steps, see :class:`options.PipelineOptions`; groups are mappings.

    Raises:
        ValueError: a setting is unknown or out of range, or ``store`` is given with a model that is built.
        VlsamError: a model cannot be loaded, or ``store`` holds results of other settings.
    """

    # tools/test.py asks for a checkpoint otherwise.
    has_own_weights = True
    # It refuses --tta by this.
    takes_augmented_views = False

    def __init__(
        self,
        vlm: Mapping[str, Any] | VisionLanguageModel,
        segmenter: Mapping[str, Any] | Segmenter,
        store: str | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: None = None,
        **settings: Any,
    ) -> None:
        if init_cfg is not None:
            raise ValueError('init_cfg must be None: VLSAM loads its weights by the names of its two models.')
        super().__init__(data_preprocessor=data_preprocessor or {'type': 'mmengine.BaseDataPreprocessor'})
        # Whatever can be refused is refused before gigabytes are loaded.
        options = PipelineOptions.from_mapping(settings)
        self.store = ResultStore(store, fingerprint(vlm, segmenter, options)) if store else None
        self._moves = {'vlm': not places_itself(vlm), 'segmenter': not places_itself(segmenter)}
        # Not submodules: their weights are no part of a checkpoint of this model.
        self.pipeline = Pipeline(_build(vlm), _build(segmenter), options)

    def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
        """Move the two models along; every way to move a module, or to cast it, ends here."""
        module = super()._apply(fn, recurse)
        device = _asked_device(fn)
        for name, moves in self._moves.items():
            move = getattr(getattr(self.pipeline, name), 'to', None)
            if device is not None and moves and callable(move):
                move(device)
        return module

    def predict(
        self, batch_inputs: Sequence[Tensor] | Tensor, batch_data_samples: list[DetDataSample], **_: Any
    ) -> list[DetDataSample]:
        """Detect in a batch, image by image; no image's result depends on another.

        Args:
            batch_inputs: B images uint8 [3, H, W], BGR.
            batch_data_samples: B samples, which receive ``pred_instances``.
        """
        for pixels, sample in zip(batch_inputs, batch_data_samples, strict=True):
            key = str(sample.metainfo.get('img_path', sample.metainfo.get('img_id')))
            found = self.store.get(key) if self.store else None
            if found is None:
                found = self._attempt(pixels, sample, key)
            sample.pred_instances = to_instances(found, pixels.device)
        return batch_data_samples

    def _attempt(self, pixels: Tensor, sample: DetDataSample, key: str) -> Detections:
        """Detect in one image; one that fails is said and is empty."""
        image = _to_rgb(pixels)
        height, width = sample.metainfo.get('ori_shape', image.shape[:2])[:2]
        try:
            if 'vlsam_error' in sample.metainfo:  # the loader could not read it
                raise VlsamError(sample.metainfo['vlsam_error'])
            loaded = LoadedImage.of(image, (height, width), self.pipeline.options.max_side)
            found = to_original(self.pipeline.detect(loaded.pixels), loaded)
        except Exception as error:  # one image must not end a run of hours
            reason = str(error) if isinstance(error, VlsamError) else f'{type(error).__name__}: {error}'
            if not isinstance(error, VlsamError):
                print_log(traceback.format_exc(), 'current', logging.WARNING)
            name = sample.metainfo.get('img_path', key)
            print_log(f'{name} is left out: {reason}', 'current', logging.WARNING)
            sample.set_metainfo({'vlsam_error': reason})
            if self.store:
                self.store.fail(key, reason)
            return Detections(size=(height, width))
        if self.store:
            self.store.put(key, found)
        return found

    def loss(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        """There is none.

        Raises:
            VlsamError: always.
        """
        raise VlsamError('VLSAM is not trained; run tools/test.py or tools/vlsam.py with this config.')

    def extract_feat(self, *_: Any, **__: Any) -> tuple[Tensor, ...]:
        """There are none outside of the two models.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError('VLSAM has no features of its own; ask its vlm or segmenter.')

    def _forward(self, *_: Any, **__: Any) -> tuple[Tensor, ...]:
        return self.extract_feat()


def to_instances(found: Detections, device: torch.device | str = 'cpu') -> InstanceData:
    """Detections as mmdet's metrics take them."""
    return InstanceData(
        bboxes=torch.from_numpy(found.boxes).to(device),
        scores=torch.from_numpy(found.scores).to(device),
        labels=torch.zeros(len(found), dtype=torch.int64, device=device),
        names=list(found.names),
        masks=list(found.run_lengths),
    )


def _asked_device(fn: Callable[[Tensor], Tensor]) -> torch.device | None:
    """Where a function of ``nn.Module._apply`` puts tensors; None where it leaves them, as casts do."""
    device = fn(torch.zeros(())).device
    if device.type != 'cpu':
        return device
    # A probe on the CPU stays there either way; one that is nowhere cannot be copied to the CPU.
    try:
        moved = fn(torch.zeros((), device='meta')).device != torch.device('meta')
    except NotImplementedError:
        moved = True
    except RuntimeError:  # share_memory_ knows the CPU alone
        moved = False
    return device if moved else None


def _build(part: Any) -> Any:
    return MODELS.build(dict(part)) if isinstance(part, Mapping) else part


def _to_rgb(pixels: Tensor) -> Image:
    """A loader's image, uint8 BGR [3, H, W], as RGB [H, W, 3]."""
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3:
        raise VlsamError(
            f'VLSAM takes images uint8 [3, H, W] as they are loaded, but got {pixels.dtype} '
            f'{list(pixels.shape)}; remove normalisation from the data preprocessor and the test pipeline.'
        )
    return np.ascontiguousarray(pixels.permute(1, 2, 0).flip(-1).cpu().numpy())
