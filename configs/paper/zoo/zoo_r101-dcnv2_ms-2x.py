# ATSS, ResNet-101 with deformable convolutions, 24 epochs at 640 to 800 pixels: 46.1 AP on minival.
_base_ = './zoo_r101_ms-2x.py'

# Deformable in stages c3 to c5 and in the last layer of both towers of the head.
model = dict(
    backbone=dict(
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
    bbox_head=dict(dcn_on_last_conv=True),
)
