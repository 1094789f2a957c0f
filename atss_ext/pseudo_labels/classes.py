"""Free names made classes: a merge map of the user's, else lower case, singular and without article."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.naming.categories import in_singular, plain
from atss_ext.evaluation.naming.encoder import TextEncoder
from atss_ext.evaluation.naming.mapper import CategoryMapper

MergeMap = dict[str, list[str]]
"""Class -> the names that are it, beside its own."""


def class_name(name: str) -> str:
    """What a name is called as a class: 'The Traffic-Lights' is 'traffic light'; '' where it has no words."""
    return in_singular(plain(name))


def read_merge_map(path: str | os.PathLike[str]) -> MergeMap:
    """Read a merge map: JSON, or else YAML, ``class: [names]``; a class without names stands for itself.

    Raises:
        DataError: the file is missing or is no such map, or a name stands in two classes (case, article and
            number do not tell names apart).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f'merge map {path} does not exist; correct the path')
    try:
        text = path.read_text(encoding='utf-8-sig')
        if path.suffix.lower() == '.json':
            pairs = json.loads(text, object_pairs_hook=list)
        else:
            pairs = _yaml_pairs(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(
            f'merge map {path} cannot be read ({" ".join(str(error).split())}); correct it'
        ) from None
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
        raise DataError(f"merge map {path} is no map 'class: [names]'; write one line a class")
    return check_merge_map([(str(key), _names(value, str(key), path)) for key, value in pairs], str(path))


def check_merge_map(pairs: Iterable[tuple[str, Sequence[str]]], where: str = 'the merge map') -> MergeMap:
    """A merge map in which every name is of one class.

    Args:
        pairs: (class, names).
        where: what they are of, for the message.

    Raises:
        DataError: a class without words, or a name of two classes.
    """
    owners: dict[str, str] = {}
    found: MergeMap = {}
    for key, names in pairs:
        if not class_name(key):
            raise DataError(f'{where} has the class {key!r}, which has no word; give it a name')
        if key in found:
            raise DataError(f'{where} has the class {key!r} twice; write all its names in one list')
        for name in (key, *names):
            owner = owners.setdefault(class_name(name), key)
            if owner != key:
                raise DataError(
                    f'{where} has the name {name!r} in two classes, {owner!r} and {key!r} (case, article and '
                    'number do not count); leave it in one'
                )
        found[key] = list(names)
    return found


def merge_names(
    names: Iterable[str],
    merge_map: Mapping[str, Sequence[str]] | None = None,
    *,
    others: str = 'keep',
    encoder: TextEncoder | Mapping[str, Any] | None = None,
    threshold: float | None = None,
) -> dict[str, str | None]:
    """Bring names to classes.

    A name of the map is its class, and so is one that differs in case, article, number or hyphens alone
    (:class:`~atss_ext.evaluation.naming.CategoryMapper`). The encoder, if there is one, brings the others to
    the nearest class of the map. What is left is a class of its own, or of none.

    Args:
        names: as VL-SAM gave them; the same one may come often.
        merge_map: :func:`read_merge_map`; None or empty merges by words alone.
        others: 'keep' makes names that are in no class of the map a class each, 'drop' leaves them out.
        encoder: a text encoder of ``atss_ext.evaluation.naming`` or its config; needs a map.
        threshold: cosine below which the encoder's answer does not count.

    Returns:
        name -> class, None for none.

    Raises:
        ValueError: ``others`` is something else, or an encoder without a map.
    """
    if others not in ('keep', 'drop'):
        raise ValueError(f"others must be 'keep' or 'drop', but is {others!r}.")
    if not merge_map:
        if encoder is not None or others == 'drop':
            raise ValueError("an encoder, and others='drop', need a merge map; give the classes.")
        return {name: class_name(name) or None for name in names}
    different = list(dict.fromkeys(names))
    mapper = CategoryMapper(list(merge_map), list(merge_map.values()), encoder, threshold=threshold)
    matches = mapper.map(different)
    own = class_name if others == 'keep' else lambda name: ''
    return {
        name: mapper.categories[match.labels[0]] if match.labels else own(name) or None
        for name, match in zip(different, matches, strict=True)
    }


def order_classes(counts: Counter[str], merge_map: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """The classes in the order of the map; then the others, the most frequent first, then by name."""
    mapped = [name for name in merge_map or () if name in counts]
    rest = sorted(counts.keys() - set(mapped), key=lambda name: (-counts[name], name))
    return mapped + rest


def _yaml_pairs(text: str) -> Any:
    # Nodes and not values: a key that stands twice is seen, and the class "no" stays a word.
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return _plain_yaml(node)


def _plain_yaml(node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.MappingNode):
        return [(_plain_yaml(key), _plain_yaml(value)) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [_plain_yaml(item) for item in node.value]
    if node is None or node.tag == 'tag:yaml.org,2002:null':
        return None
    return node.value


def _names(value: Any, key: str, path: Path) -> list[str]:
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'merge map {path} has no list of names at the class {key!r}; write [name, name]')
    return names
