"""Every registry of the scope ``atss_ext``.

A config reaches a class of this package as ``type='atss_ext.Name'``: mmengine then imports
this file by itself, finds the node below its own root, and imports the node's ``locations``.
``custom_imports`` is therefore never needed.

Whoever reaches the scope is about to load checkpoints: from here on mmengine opens local ones with our
loader, which executes nothing they hold (:func:`atss_ext.compat.checkpoints.register_loader`).
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import Registry

from atss_ext.compat import checkpoints

checkpoints.register_loader()

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='atss_ext', locations=['atss_ext.models'])
TASK_UTILS = Registry(
    'task util', parent=MMENGINE_TASK_UTILS, scope='atss_ext', locations=['atss_ext.assigners']
)
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='atss_ext', locations=['atss_ext.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='atss_ext', locations=['atss_ext.visualization'])
