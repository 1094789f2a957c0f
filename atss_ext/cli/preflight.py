"""The annotation files, images and assigner of a config, checked before a run begins."""

import codecs
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.models.dense_heads import AnchorHead, FCOSHead
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from atss_ext.cli.errors import note
from atss_ext.datasets import CodaDataset, LvisDataset, ShapesDataset
from atss_ext.datasets.checks import CocoSummary, DataError, check_coco, check_images, read_coco
from atss_ext.datasets.leaves import iter_leaves
from atss_ext.errors import UserError


class _LentCOCO(COCO):
    """mmdet's COCO API that takes a file parsed already instead of parsing it again.

    Parsing is nearly all of the time of the checks (15 s for a file like COCO's train2017).
    """

    lent: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - shared on purpose

    def __init__(self, annotation_file: str | None = None) -> None:
        content = self.lent.pop(os.path.abspath(annotation_file), None) if annotation_file else None
        if content is None:
            super().__init__(annotation_file)
            return
        super().__init__()
        self.dataset = content
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


def check_data(cfg: Config, *dataloaders: str) -> None:
    """Check every dataset of COCO, LVIS and CODA of some dataloaders; other kinds are passed over.

    Where there is one to train on, an assigner that its head never calls is noted too.

    Args:
        cfg: the config.
        *dataloaders: top-level keys, ``train_dataloader`` and the like; absent ones are passed over.

    Raises:
        DataError: the first fault, with the dataloader it belongs to.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model = cfg.get('model')
    head = model.get('bbox_head') if isinstance(model, Mapping) else None
    if isinstance(head, Mapping) and 'train_dataloader' in dataloaders:
        _note_assigner(head, (model.get('train_cfg') or {}).get('assigner'))
    for key in dataloaders:
        loader = cfg.get(key)
        if not isinstance(loader, Mapping) or not isinstance(loader.get('dataset'), Mapping):
            continue
        files = _check_loader(key, loader['dataset'], head)
        prefix = key.removesuffix('_dataloader')
        if prefix != 'train':
            _check_evaluator(f'{prefix}_evaluator', cfg.get(f'{prefix}_evaluator'), files)
    if _LentCOCO.lent:
        CocoDataset.COCOAPI = LvisDataset.READER = _LentCOCO


def _note_assigner(head: Mapping[str, Any], assigner: Any) -> None:
    """Say so where mmdet's FCOSHead, which builds an assigner, is given one that it never calls.

    Args:
        head: config of the head of a one-stage model.
        assigner: config, of its ``train_cfg``.
    """
    kind = head.get('type')
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(assigner, Mapping) or not isinstance(kind, type):
        return
    name = str(assigner.get('type'))
    # Heads that are both (VFNetHead) are anchor heads by default, which do assign.
    if issubclass(kind, FCOSHead) and not issubclass(kind, AnchorHead):
        note(
            f'{kind.__name__} assigns by a rule of its own and never calls model.train_cfg.assigner '
            f"({name}): remove that key, or take atss_ext.ATSSHead with regression='point'"
        )


def _check_loader(key: str, dataset_cfg: Mapping[str, Any], head: Any) -> list[str]:
    """Check a dataloader's datasets and return their annotation files."""
    summaries: list[CocoSummary] = []
    files: list[str] = []
    complete = True
    for leaf in iter_leaves(dataset_cfg):
        dataset = _coco_dataset(leaf)
        if dataset is None:
            complete = False
            continue
        try:
            summaries.append(_check_dataset(dataset))
        except DataError as error:
            raise DataError(f'{key}: {error}') from None
        _check_head(key, dataset, head)
        files.append(os.path.abspath(dataset.ann_file))
    for summary in summaries:
        for sentence in summary.notes:
            note(f'{key}: {sentence}')
    if key == 'train_dataloader' and complete and summaries and not sum(s.boxes for s in summaries):
        images = sum(summary.images for summary in summaries)
        raise DataError(
            f'{key}: its {images} images hold no box to train on (crowd boxes and boxes below one pixel do '
            'not count); correct the annotation file or the classes'
        )
    return files


def _check_head(key: str, dataset: CocoDataset, head: Any) -> None:
    """Compare the classes with those of a one-stage head; other models count them in their own ways."""
    classes = dataset.metainfo.get('classes')
    count = head.get('num_classes') if isinstance(head, Mapping) else None
    # With return_classes the head reads names, and its num_classes is a mere bound.
    if isinstance(count, int) and classes and not dataset.return_classes and count != len(classes):
        raise DataError(
            f'model.bbox_head.num_classes is {count}, but the dataset of {key} has {len(classes)} classes '
            f"(first '{classes[0]}'); make them agree"
        )


def _coco_dataset(leaf: Mapping[str, Any]) -> CocoDataset | None:
    """Build the dataset without its annotations and pipeline, if it reads a local file in COCO format."""
    kind = leaf.get('type')
    if isinstance(kind, str):
        kind = DATASETS.get(kind)
    if not (isinstance(kind, type) and issubclass(kind, CocoDataset) and _reads_as_coco(kind)):
        return None
    # The class itself joins its paths and classes: no second opinion about either.
    dataset = DATASETS.build({**leaf, 'lazy_init': True, 'pipeline': []})
    remote = '://' in dataset.ann_file or (dataset.backend_args or {}).get('backend', 'local') != 'local'
    return None if remote or not dataset.ann_file.endswith('.json') else dataset


def _reads_as_coco(kind: type[CocoDataset]) -> bool:
    """Return whether a class reads its file as mmdet's own does; Objects365, panoptic and others do not."""
    if issubclass(kind, LvisDataset):
        own = (getattr(kind, name) is getattr(LvisDataset, name) for name in ('load_data_list', 'COCOAPI'))
        return all(own) and kind.parse_data_info is LvisDataset.parse_data_info
    return issubclass(kind, ShapesDataset | CodaDataset) or (
        kind.COCOAPI in (COCO, _LentCOCO)
        and kind.load_data_list is CocoDataset.load_data_list
        and kind.parse_data_info is CocoDataset.parse_data_info
        and kind.filter_data is CocoDataset.filter_data
    )


def _refuse_byte_order_mark(path: str) -> None:
    """Our own readers take one; pycocotools, which mmdet reads and scores by, ends in a traceback."""
    with open(path, 'rb') as stream:
        start = stream.read(4)
    if start.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise DataError(
            f'annotation file {path} begins with a byte order mark, which pycocotools cannot read; save it '
            'as UTF-8 without one'
        )


def _check_dataset(dataset: CocoDataset) -> CocoSummary:
    content = read_coco(dataset.ann_file)
    _refuse_byte_order_mark(dataset.ann_file)
    if isinstance(dataset, LvisDataset):
        dataset.prepare(content)
    if isinstance(dataset, CodaDataset):
        # Its modes and rules are its own, and it names what breaks them: here only the images are looked at.
        summary = check_coco({'images': content['images']}, dataset.ann_file)
        summary = replace(summary, boxes=len(content.get('annotations', [])))
    else:
        summary = check_coco(
            content,
            dataset.ann_file,
            classes=dataset.metainfo.get('classes'),
            filter_cfg=None if dataset.test_mode else dataset.filter_cfg,
        )
    folder = dataset.data_prefix.get('img', '')
    if '://' not in folder:
        check_images((image['file_name'] for image in content['images']), folder, dataset.ann_file)
    if not isinstance(dataset, CodaDataset):  # it reads its file itself
        _LentCOCO.lent[os.path.abspath(dataset.ann_file)] = content
    return summary


def _check_evaluator(key: str, evaluator: Any, files: list[str]) -> None:
    for metric in evaluator if isinstance(evaluator, list | tuple) else [evaluator]:
        if isinstance(metric, Mapping) and 'metric' in metric:  # one around another
            _check_evaluator(key, metric['metric'], files)
        ann_file = metric.get('ann_file') if isinstance(metric, Mapping) else None
        if not isinstance(ann_file, str) or '://' in ann_file:
            continue
        if not os.path.isfile(ann_file):
            raise UserError(
                f'{key}: annotation file {ann_file} does not exist; correct its ann_file, which data_root is '
                'not put before'
            )
        if files and os.path.abspath(ann_file) not in files:
            note(f'{key} compares with {ann_file}, while its dataset reads {files[0]}')
