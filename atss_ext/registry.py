"""Every registry of the scope ``atss_ext``.

A config reaches a class of this package as ``type='atss_ext.Name'``: mmengine then imports
this file by itself, finds the node below its own root, and imports the node's ``locations``.
``custom_imports`` is therefore never needed.

Whoever reaches the scope is about to load checkpoints: from here on mmengine opens local ones with our
loader, which executes nothing they hold (:func:`atss_ext.compat.checkpoints.register_loader`).
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import Registry

from atss_ext.compat import checkpoints

checkpoints.register_loader()

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='atss_ext',
    locations=['atss_ext.models', 'atss_ext.vlsam.detector'],
)
MODEL_WRAPPERS = Registry(
    'model_wrapper', parent=MMENGINE_MODEL_WRAPPERS, scope='atss_ext', locations=['atss_ext.models']
)
TASK_UTILS = Registry(
    'task util',
    parent=MMENGINE_TASK_UTILS,
    scope='atss_ext',
    locations=['atss_ext.assigners', 'atss_ext.evaluation.naming'],
)
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope='atss_ext',
    locations=['atss_ext.datasets', 'atss_ext.vlsam.image_list'],
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='atss_ext', locations=['atss_ext.vlsam.image_list']
)
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='atss_ext',
    locations=['atss_ext.visualization', 'atss_ext.visualization.open_ended_visualizer'],
)
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope='atss_ext', locations=['atss_ext.evaluation'])
VISUALIZERS = Registry(
    'visualizer',
    parent=MMENGINE_VISUALIZERS,
    scope='atss_ext',
    locations=['atss_ext.visualization.open_ended_visualizer'],
)
