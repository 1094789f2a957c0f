# ATSS, ResNet-101, 24 epochs, the shorter side of a training image 640 to 800 pixels: 43.5 AP on minival.
_base_ = './zoo_r101_1x.py'

train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(
    type='RandomChoiceResize', scales=[(1333, side) for side in range(640, 801)], keep_ratio=True
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=24)
# A list is replaced as a whole.
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=24, milestones=[16, 22])
