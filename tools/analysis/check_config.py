"""Say what a config resolves to, how it differs from its base, and which of its keys nothing reads.

The output is itself a config: everything but the resolved sections is a comment.
"""

import argparse
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from keyword import iskeyword
from pathlib import Path
from typing import Any

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from mmengine.config import Config

from atss_ext.cli import run_tool
from atss_ext.cli.config_chain import ConfigFile, is_lazy, read_chain
from atss_ext.cli.config_diff import diff
from atss_ext.cli.config_keys import SECTIONS, find_unread
from atss_ext.cli.merge import merge_options
from atss_ext.cli.options import CfgOptions, config_path, read_config

WIDTH = 110
GROUPS = (
    ('model', ('model', 'data_preprocessor', 'tta_model')),
    ('data', ('train_dataloader', 'val_dataloader', 'test_dataloader', 'tta_pipeline')),
    ('evaluation', ('val_evaluator', 'test_evaluator')),
    ('schedule', ('train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr')),
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Show what a config resolves to, and check its keys')
    parser.add_argument('config', help='config file, or package::path as in _base_')
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, help='key=value pairs merged into the config'
    )
    parser.add_argument('--against', metavar='BASE', help='compare with this config instead of its own bases')
    parser.add_argument('--strict', action='store_true', help='exit with 1 if a key is read by nothing')
    return parser.parse_args(argv)


def heading(text: str) -> None:
    """Print a comment that starts a part."""
    print(f'\n# ---- {text} ' + '-' * max(4, 90 - len(text)))


def comment(lines: Iterable[Any]) -> None:
    """Print lines as comments."""
    for line in lines:
        print(f'#   {line}')


def base_of(chain: ConfigFile, against: str | None) -> dict[str, Any] | None:
    """Return what the config is compared with: another one, or all its direct bases; None without any."""
    files = [Path(config_path(against))] if against else [base.path for base in chain.bases]
    merged: dict[str, Any] = {}
    for file in files:
        merged.update(read_config(str(file)).to_dict())
    return merged if files else None


def as_python(value: Any, indent: int = 0, taken: int = 0) -> str:
    """Write a value of a config as Python, on one line where it fits.

    Args:
        value: the value.
        indent: blanks before the line it stands on.
        taken: characters of that line that are used already.
    """
    if not isinstance(value, Mapping | list | tuple) or not value:
        return repr(value)
    if isinstance(value, Mapping):
        plain = all(isinstance(key, str) and key.isidentifier() and not iskeyword(key) for key in value)
        opening, closing = ('dict(', ')') if plain else ('{', '}')
        keys = [f'{key}=' if plain else f'{key!r}: ' for key in value]
        items = list(value.values())
    else:
        opening, closing = ('[', ']') if isinstance(value, list) else ('(', ')')
        keys, items = [''] * len(value), list(value)
    end = ',' if isinstance(value, tuple) and len(value) == 1 else ''
    line = (
        opening
        + ', '.join(key + as_python(item) for key, item in zip(keys, items, strict=True))
        + end
        + closing
    )
    if indent + taken + len(line) <= WIDTH:
        return line
    inner = indent + 4
    rows = [
        f'{" " * inner}{key}{as_python(item, inner, len(key) + 1)},'
        for key, item in zip(keys, items, strict=True)
    ]
    return '\n'.join([opening, *rows, ' ' * indent + closing])


def print_resolved(cfg: Config, lazy: bool) -> None:
    """Print every section as Python that mmengine reads back."""
    if lazy:  # holds classes, which mmengine itself knows to write
        print(cfg.pretty_text)
        return
    grouped = [key for _, keys in GROUPS for key in keys]
    rest = [key for key in cfg if key in SECTIONS and key not in grouped]
    variables = [key for key in cfg if key not in SECTIONS]
    for name, keys in (*GROUPS, ('runtime', rest), ('variables', variables)):
        present = [key for key in keys if key in cfg]
        if present:
            heading(name)
        for key in present:
            print(f'{key} = {as_python(cfg[key], taken=len(key) + 3)}')


def report(cfg: Config, chain: ConfigFile, against: str | None) -> int:
    """Print the report and return how many keys nothing reads."""
    heading('files, heirs before their bases')
    comment(chain.lines())
    lazy = is_lazy(chain.path)
    print_resolved(cfg, lazy)
    base = base_of(chain, against)
    heading(f'changes against {against or "its bases"} (+ added, - removed, ~ changed)')
    without = 'its bases are Python imports: name one by --against' if lazy else 'it has no base'
    changes = [without] if base is None else list(diff(base, cfg.to_dict())) or ['none']
    comment(changes)
    heading('keys that nothing reads')
    findings = find_unread(cfg, [] if lazy else chain.flat())
    comment(f'{item.path}: {item.message}{"" if item.certain else " (a guess)"}' for item in findings)
    if not findings:
        comment(['none'])
    return len(findings)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report; with ``--strict`` exit with 1 if something is read by nothing."""
    args = parse_args(argv)
    with redirect_stdout(io.StringIO()):  # importing mmdet's parts may print
        path = config_path(args.config)
        cfg = read_config(path)
        if args.cfg_options:
            merge_options(cfg, args.cfg_options)
    unread = report(cfg, read_chain(path, args.config), args.against)
    if args.strict and unread:
        sys.exit(1)


if __name__ == '__main__':
    sys.exit(run_tool(main))
