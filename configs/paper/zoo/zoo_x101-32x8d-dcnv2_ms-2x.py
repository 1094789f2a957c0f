# ATSS, ResNeXt-101-32x8d with deformable convolutions, 24 epochs at 640 to 800 pixels: 47.7 AP.
_base_ = './zoo_x101-32x8d_ms-2x.py'

# Deformable in stages c4 and c5 and in the last layer of both towers of the head.
model = dict(
    backbone=dict(
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
    ),
    bbox_head=dict(dcn_on_last_conv=True),
)
