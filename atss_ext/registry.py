"""Every registry of the scope ``atss_ext``.

A config reaches a class of this package as ``type='atss_ext.Name'``: mmengine then imports
this file by itself, finds the node below its own root, and imports the node's ``locations``.
``custom_imports`` is therefore never needed.

A config that inherits ``atss_ext::...`` gets this scope for what it inherits, where types of mmdet stand
without a prefix, as in mmdet's own configs: what we do not have is looked for there.

Whoever reaches the scope is about to load checkpoints: from here on mmengine opens local ones with our
loader, which executes nothing they hold (:func:`atss_ext.compat.checkpoints.register_loader`).
"""

from mmengine import registry as roots
from mmengine.registry import Registry

from atss_ext.compat import checkpoints

checkpoints.register_loader()


class ScopeRegistry(Registry):
    """A registry below mmengine's in which a name without a scope is ours, mmdet's or mmengine's."""

    def get(self, key: str) -> type | None:
        """The class of a name, as ``Registry.get``."""
        self.import_from_location()
        if '.' not in key and key not in self.module_dict and self.parent is not None:
            # Before the parent, where mmcv has a LoadAnnotations of its own. Ours come first: mmengine takes
            # the scope off `atss_ext.ATSSHead` before it asks here.
            found = self.parent.get(f'mmdet.{key}')
            if found is not None:
                return found
        return super().get(key)


def _below(root: Registry, *locations: str) -> ScopeRegistry:
    return ScopeRegistry(root.name, parent=root, scope='atss_ext', locations=list(locations))


MODELS = _below(roots.MODELS, 'atss_ext.models', 'atss_ext.vlsam.detector')
MODEL_WRAPPERS = _below(roots.MODEL_WRAPPERS, 'atss_ext.models')
STRATEGIES = _below(roots.STRATEGIES, 'atss_ext.models.sharding')
TASK_UTILS = _below(roots.TASK_UTILS, 'atss_ext.assigners', 'atss_ext.evaluation.naming')
DATASETS = _below(roots.DATASETS, 'atss_ext.datasets', 'atss_ext.vlsam.image_list')
TRANSFORMS = _below(roots.TRANSFORMS, 'atss_ext.vlsam.image_list')
HOOKS = _below(roots.HOOKS, 'atss_ext.visualization', 'atss_ext.visualization.open_ended_visualizer')
METRICS = _below(roots.METRICS, 'atss_ext.evaluation')
VISUALIZERS = _below(roots.VISUALIZERS, 'atss_ext.visualization.open_ended_visualizer')

# Nothing of ours is in these: mmengine warns where a scope lacks a kind that a config names, and where a
# registry has no location.
_EMPTY = [
    _below(root, __name__)
    for root in (
        roots.DATA_SAMPLERS,
        roots.EVALUATOR,
        roots.FUNCTIONS,
        roots.LOG_PROCESSORS,
        roots.LOOPS,
        roots.OPTIMIZERS,
        roots.OPTIM_WRAPPERS,
        roots.OPTIM_WRAPPER_CONSTRUCTORS,
        roots.PARAM_SCHEDULERS,
        roots.VISBACKENDS,
        roots.WEIGHT_INITIALIZERS,
    )
]
