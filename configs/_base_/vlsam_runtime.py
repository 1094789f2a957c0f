# Testing a model that is not trained: mmdet's runtime, with a drawing that shows free names.
_base_ = 'mmdet::_base_/default_runtime.py'

visualizer = dict(type='atss_ext.OpenEndedVisualizer')
default_hooks = dict(visualization=dict(type='atss_ext.OpenEndedVisualizationHook', score_thr=0.0))
# torch's own wrapper of distributed runs refuses a model in which nothing learns.
model_wrapper_cfg = dict(type='atss_ext.InferenceWrapper')
test_cfg = dict()
# Processes look at images of minutes each and meet at the end only: nobody waits in vain, since the launcher
# ends all of them when one dies.
env_cfg = dict(dist_cfg=dict(timeout=365 * 24 * 3600))
