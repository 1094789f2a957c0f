"""Keys of a config that nothing reads."""

import ast
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv.ops
import mmdet
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

from atss_ext.cli.signatures import known_names, parameters, resolve
from atss_ext.datasets.checks import nearest

Position = tuple[str | int, ...]

# Read by Runner through its `cfg`, by mmengine's Config, and by mmdet's and our commands.
_OTHER_SECTIONS = {
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn', 'tta_model', 'tta_pipeline',
}  # fmt: skip
SECTIONS = frozenset(set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | _OTHER_SECTIONS)
"""Top-level keys that are read."""

ALWAYS = frozenset({'type', '_scope_', '_delete_'})
_DATALOADER = frozenset(
    {*inspect.signature(DataLoader.__init__).parameters, 'num_batch_per_epoch'} - {'self'}
)
_WITHOUT_TYPE: dict[Position, tuple[type, ...]] = {
    ('train_cfg',): (EpochBasedTrainLoop, IterBasedTrainLoop),
    ('log_processor',): (LogProcessor,),
    ('visualizer',): (Visualizer,),
    ('optim_wrapper',): (OptimWrapper,),
}
_PLAIN: dict[Position, frozenset[str]] = {
    (): SECTIONS,
    ('env_cfg',): frozenset({'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}),
    ('auto_scale_lr',): frozenset({'enable', 'base_batch_size'}),
    ('randomness',): frozenset({'seed', 'diff_rank_seed', 'deterministic'}),
    ('custom_imports',): frozenset({'imports', 'allow_failed_imports'}),
}
_PARAMWISE = frozenset({
    'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult',
    'dcn_offset_lr_mult', 'bypass_duplicate', 'custom_keys',
})  # fmt: skip
_NMS = frozenset({
    'iou_threshold', 'iou_thr', 'score_threshold', 'max_num', 'split_thr', 'class_agnostic', 'offset',
    'sigma', 'min_score', 'method',
})  # fmt: skip
# Keys that a builder takes out of a dict before it builds the class.
_POPPED: dict[str, frozenset[str]] = {
    'norm_cfg': frozenset({'requires_grad'}),
    'conv_cfg': frozenset({'fallback_on_stride'}),
    'dcn': frozenset({'fallback_on_stride'}),
    'init_cfg': frozenset({'override', 'name'}),
    'default_hooks': frozenset({'priority'}),
    'custom_hooks': frozenset({'priority'}),
    'optim_wrapper': frozenset({'constructor', 'paramwise_cfg'}),
    'param_scheduler': frozenset({'convert_to_iter_based'}),
}
# Functions that heads share and hand their train_cfg or test_cfg to.
_SHARED = ('structures/mask', 'models/losses', 'models/utils')
# In mmdet's configs since its first version; no class of version 3 reads it.
_LEGACY = frozenset({'debug'})


@dataclass(frozen=True)
class Finding:
    """A key that nothing reads, or a type that is not found.

    Attributes:
        path: where it stands, dotted.
        message: what is wrong with it.
        certain: False where the code that would read it could only be guessed.
    """

    path: str
    message: str
    certain: bool = True


def scope_of(cfg: Config) -> str:
    """Return the scope in which the types of a config are looked up."""
    return cfg.get('default_scope') or 'mmengine'


def dotted(path: Position) -> str:
    """Return a position as ``--cfg-options`` writes it."""
    return '.'.join(map(str, path))


def allowed_keys(cfg: Config, path: Position) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Return the keys that are read of the dict at a position.

    Args:
        cfg: the config.
        path: the keys that lead to the dict; empty for the top of the config.

    Returns:
        The keys that its class takes, None where they are not known; and texts in the code of the
        class around it, which may read keys of its own accord before it builds this one.
    """
    node: Any = cfg._cfg_dict
    around: Mapping[str, Any] | None = None
    for key in path:
        around = node if isinstance(node, Mapping) and 'type' in node else around
        node = node[key]
    return _taken_keys(cfg, path, node), _local_words(cfg, around)


def _taken_keys(cfg: Config, path: Position, node: Mapping[str, Any]) -> frozenset[str] | None:
    if path in _PLAIN:
        return _PLAIN[path]
    if node.get('type') in ('nms', 'soft_nms'):  # mmcv.ops calls these by name
        return _NMS
    if len(path) == 1 and str(path[0]).endswith('_dataloader'):
        return _DATALOADER
    if path == ('optim_wrapper', 'paramwise_cfg'):
        return None if 'constructor' in cfg.optim_wrapper else _PARAMWISE
    taken = [parameters(kind) for kind in _kinds(cfg, path, node)]
    if not taken or None in taken:
        return None
    popped = [_POPPED[str(key)] for key in path if key in _POPPED]
    if path == ('train_cfg',) and 'type' not in node:  # mmengine takes one or the other
        popped.append(frozenset({'by_epoch'}))
    return frozenset().union(ALWAYS, *[names for names in taken if names is not None], *popped)


def _kinds(cfg: Config, path: Position, node: Mapping[str, Any]) -> Sequence[Callable[..., Any]]:
    if path == ('train_cfg',) and 'type' not in node and 'by_epoch' in node:
        return (EpochBasedTrainLoop if node['by_epoch'] else IterBasedTrainLoop,)
    if 'type' not in node:
        return _WITHOUT_TYPE.get(path, ())
    found = resolve(node['type'], node.get('_scope_') or scope_of(cfg))
    if not found and _name(path) == 'roi_layer':  # mmdet takes it from mmcv.ops by name
        found = [getattr(mmcv.ops, node['type'])] if hasattr(mmcv.ops, node['type']) else []
    return found


def _name(path: Position) -> str:
    return next((key for key in reversed(path) if isinstance(key, str)), '')


def find_unread(cfg: Config, chain: Sequence[Path]) -> list[Finding]:
    """Find the keys that nothing reads, and the types that no registry has.

    Args:
        cfg: the config.
        chain: its files, the config's own first, then those it inherits from; empty to leave top-level
            variables unchecked (in mmengine's pure Python style they are Python's own names).
    """
    findings = [*_unread_variables(cfg, chain)] if chain else []
    words = _words(cfg)
    for section in SECTIONS & set(cfg.keys()):
        for path, node in _dicts((section,), cfg[section]):
            findings += _unread_keys(cfg, path, node, words)
    return _merge_alike(findings)


def _dicts(path: Position, value: Any) -> Iterator[tuple[Position, Mapping[str, Any]]]:
    """Yield every dict from a position downwards."""
    if isinstance(value, Mapping):
        yield path, value
        # albumentations has names of its own.
        inner = {} if str(value.get('type')).endswith('Albu') else value
        for key, item in inner.items():
            yield from _dicts((*path, key), item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _dicts((*path, index), item)


def _unread_keys(
    cfg: Config, path: Position, node: Mapping[str, Any], words: frozenset[str]
) -> Iterator[Finding]:
    allowed, local = allowed_keys(cfg, path)
    reader = f'{node["type"]}' if 'type' in node else dotted(path)
    if allowed is not None:
        for key in [key for key in node if key not in allowed | ALWAYS | local]:
            yield Finding(dotted((*path, key)), f"{reader} takes no key '{key}'{nearest(str(key), allowed)}")
    elif 'type' in node and not _kinds(cfg, path, node) and node['type'] not in local:
        near = nearest(str(node['type']), known_names(scope_of(cfg)))
        yield Finding(dotted((*path, 'type')), f"no registry has the type '{node['type']}'{near}")
    elif path[0] == 'model' and {'train_cfg', 'test_cfg'} & set(path) and 'type' not in node:
        for key in [key for key in node if isinstance(key, str) and key not in words | _LEGACY]:
            message = f"no class of the model seems to read a key '{key}'{nearest(key, words)}"
            yield Finding(dotted((*path, key)), message, certain=False)


def _merge_alike(findings: Sequence[Finding]) -> list[Finding]:
    """Merge what stands in several places: val_dataloader and test_dataloader are often one dict."""
    places: dict[tuple[str, bool], list[str]] = {}
    for finding in sorted(findings, key=lambda item: (not item.certain, item.path)):
        places.setdefault((finding.message, finding.certain), []).append(finding.path)
    return [Finding(', '.join(paths), message, certain) for (message, certain), paths in places.items()]


def _words(cfg: Config) -> frozenset[str]:
    """Return the names and texts in the code of the model's classes, and of the functions they share."""
    files = {str(file) for folder in _SHARED for file in Path(mmdet.__path__[0], folder).glob('*.py')}
    for path, node in _dicts(('model',), cfg.get('model')):
        files |= _sources(_kinds(cfg, path, node) if 'type' in node else ())
    return frozenset().union(*(names | texts for names, texts in map(_words_of, files)))


def _local_words(cfg: Config, around: Mapping[str, Any] | None) -> frozenset[str]:
    if around is None:
        return frozenset()
    texts = [_words_of(file)[1] for file in _sources(_kinds(cfg, ('around',), around))]
    return frozenset().union(*texts)


def _sources(kinds: Sequence[Any]) -> set[str]:
    """Return the source files of classes and their bases."""
    files = set()
    for owner in (owner for kind in kinds for owner in getattr(kind, '__mro__', ())):
        try:
            files.add(inspect.getsourcefile(owner))
        except TypeError:  # built in
            continue
    return {file for file in files if file is not None}


@functools.cache
def _words_of(file: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the attribute names of a source file, and its texts that could be keys."""
    nodes = list(ast.walk(ast.parse(Path(file).read_text(encoding='utf-8'))))
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(names), frozenset(text for text in texts if text.isidentifier())


def _unread_variables(cfg: Config, chain: Sequence[Path]) -> Iterator[Finding]:
    """Find top-level names that are no section, and that no section is made of."""
    trees = {path: ast.parse(path.read_text(encoding='utf-8')) for path in chain if path.suffix == '.py'}
    sections = {key: cfg[key] for key in SECTIONS & set(cfg.keys())}
    texts = '\n'.join(path.read_text(encoding='utf-8') for path in chain)
    for key in [key for key in cfg if key not in SECTIONS]:
        owner = next((tree for tree in trees.values() if key in _names(tree, ast.Store)), None)
        used = owner is not None and key in _names(owner, ast.Load)
        if used or f'_base_.{key}' in texts or _appears(cfg[key], sections):
            continue
        near = nearest(key, SECTIONS)
        why = (
            'a new value does not reach what its base file made of the old one'
            if sum(key in _names(tree, ast.Store) for tree in trees.values()) > 1
            else 'neither the runner nor another line of its file uses it'
        )
        yield Finding(key, f'{why}{near}')


def _names(tree: ast.AST, context: type[ast.expr_context]) -> set[str]:
    return {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


def _appears(value: Any, inside: Any) -> bool:
    """Return whether a container or text is found in a value, at any depth; numbers prove nothing."""
    if isinstance(value, bool | int | float | None) or value in ('', [], (), {}):
        return False
    if (
        value is inside
        or value == inside
        or (isinstance(value, str) and isinstance(inside, str) and value in inside)
    ):
        return True
    if isinstance(inside, Mapping):
        return any(_appears(value, item) for item in inside.values())
    return isinstance(inside, list | tuple) and any(_appears(value, item) for item in inside)
