# ATSS, ResNet-50 with deformable convolutions, 12 epochs: 43.2 AP on minival.
_base_ = './zoo_r50_1x.py'

# Deformable in stages c3 to c5 and in the last layer of both towers of the head.
model = dict(
    backbone=dict(
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
    bbox_head=dict(dcn_on_last_conv=True),
)
