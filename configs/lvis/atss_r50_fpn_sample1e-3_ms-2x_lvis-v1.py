# ATSS on LVIS v1, 24 epochs, the shorter side of a training image one of six lengths.
_base_ = './atss_r50_fpn_sample1e-3_1x_lvis-v1.py'

max_epochs = 24

train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(
    type='RandomChoiceResize',
    scales=[(1333, 640), (1333, 672), (1333, 704), (1333, 736), (1333, 768), (1333, 800)],
    keep_ratio=True,
)
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
train_cfg = dict(max_epochs=max_epochs)
# A list is replaced as a whole.
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, milestones=[16, 22])
