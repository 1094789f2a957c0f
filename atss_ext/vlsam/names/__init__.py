"""Names of things in free text, and the tokens and attention rows they stand for."""

from atss_ext.vlsam.names.finding import NameOptions, find_names
from atss_ext.vlsam.names.phrases import Mention, parse
from atss_ext.vlsam.names.plurals import singular
from atss_ext.vlsam.names.rows import DEFAULT_ROW_RULE, ROW_RULES, row_weights, token_range

__all__ = [
    'DEFAULT_ROW_RULE',
    'ROW_RULES',
    'Mention',
    'NameOptions',
    'find_names',
    'parse',
    'row_weights',
    'singular',
    'token_range',
]
