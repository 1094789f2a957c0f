"""A config for a data set of one's own: what differs from one of ours, with the classes of the file."""

import pprint
from pathlib import Path

from atss_ext.datasets.annotation_checks import read_annotations
from atss_ext.datasets.checks import DataError

_TEMPLATE = """\
# ATSS on {train.name}, {count} classes.
_base_ = {base!r}

classes = {classes}
model = dict(bbox_head=dict(num_classes=len(classes)))
train_dataloader = dict(
    dataset=dict(
        data_root='',
        ann_file={train_path!r},
        data_prefix=dict(img={train_images!r}),
        metainfo=dict(classes=classes),
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root='',
        ann_file={val_path!r},
        data_prefix=dict(img={val_images!r}),
        metainfo=dict(classes=classes),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={val_path!r})
test_evaluator = val_evaluator
"""


def class_names(path: Path) -> tuple[str, ...]:
    """The names of a COCO file's categories in the order of its list, as mmdet's ``CocoDataset`` counts.

    Args:
        path: of the file.

    Raises:
        DataError: there is no category, one without a name, or two of one name.
    """
    categories = read_annotations(path).get('categories')
    if not isinstance(categories, list) or not categories:
        raise DataError(f'{path} has no list of categories: a COCO file names its classes there')
    names: list[str] = []
    for place, category in enumerate(categories):
        name = category.get('name') if isinstance(category, dict) else None
        if not isinstance(name, str) or not name:
            raise DataError(f'category {place} of {path} is {category!r}: give it a name')
        if name in names:
            raise DataError(f'{path} has two categories named {name!r}: a class is known by its name')
        names.append(name)
    return tuple(names)


def own_config(base: str, train: Path, train_images: Path, val: Path, val_images: Path) -> str:
    """The text of a config that trains ``base`` on a COCO data set; its paths are absolute.

    Args:
        base: the config to inherit from, as in ``_base_``: a one-stage detector on a COCO data set.
        train: annotation file to train on; its categories are the classes.
        train_images: folder of its images.
        val: annotation file to validate and test on.
        val_images: folder of its images.

    Raises:
        DataError: a file cannot be read, or the two list other categories.
    """
    classes = class_names(train)
    if (others := class_names(val)) != classes:
        raise DataError(
            f'{val} lists the categories {list(others)}, {train} {list(classes)}: both must list the same '
            'ones in the same order, because labels are their places'
        )
    return _TEMPLATE.format(
        base=base,
        train=train,
        count=len(classes),
        classes=pprint.pformat(classes, width=100, compact=True),
        train_path=str(train.absolute()),
        train_images=f'{train_images.absolute()}/',
        val_path=str(val.absolute()),
        val_images=f'{val_images.absolute()}/',
    )
