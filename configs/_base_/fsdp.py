# FSDP instead of DDP: behind the others in _base_, and the model, its gradients and the optimizer's state are
# divided among the processes. A model of other parts names them:
# strategy = dict(shard=('backbone', 'neck', 'rpn_head')).
runner_type = 'FlexibleRunner'
strategy = dict(type='atss_ext.ShardedStrategy')
