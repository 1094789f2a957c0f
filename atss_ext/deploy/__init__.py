"""A trained detector made into a file for others: weights alone, or a graph that needs no mmdet.

``publish`` writes weights, config and class names as one safetensors file, ``export`` the whole detector as
ONNX or ``torch.export`` graph, which is compared with mmdet's ``predict`` before it is kept.
"""

from atss_ext.deploy.publish import Published, publish

__all__ = ['Published', 'publish']
