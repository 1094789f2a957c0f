"""Free names brought to the categories of a data set, after the model has spoken: it never sees them."""

from atss_ext.evaluation.naming.cache import CachedEncoder
from atss_ext.evaluation.naming.categories import Categories, read_categories
from atss_ext.evaluation.naming.clip import ClipEncoder
from atss_ext.evaluation.naming.encoder import TextEncoder
from atss_ext.evaluation.naming.mapper import CategoryMapper, NameMatch
from atss_ext.evaluation.naming.pooled import PooledEncoder
from atss_ext.evaluation.naming.sentence import SentenceEncoder

__all__ = [
    'CachedEncoder',
    'Categories',
    'CategoryMapper',
    'ClipEncoder',
    'NameMatch',
    'PooledEncoder',
    'SentenceEncoder',
    'TextEncoder',
    'read_categories',
]
