"""The layers of a head that are the same for classes and boxes."""

from mmcv.cnn import ConvModule
from torch import nn


def conv_tower(
    in_channels: int,
    channels: int,
    depth: int,
    conv_cfg: dict | None,
    norm_cfg: dict | None,
    dcn_on_last_conv: bool = False,
) -> nn.ModuleList:
    """3x3 convolutions with norm and ReLU, named as those of mmdet's heads.

    Args:
        in_channels: of the features.
        channels: of every layer.
        depth: number of layers.
        conv_cfg: mmcv's config of a convolution; None for a plain one.
        norm_cfg: mmcv's config of a norm; None for none, and a bias instead.
        dcn_on_last_conv: whether the last layer is a modulated deformable convolution (official code:
            USE_DCN_IN_TOWER); as in mmdet its offsets begin at 0, in the official code at random.
    """
    layers = []
    for index in range(depth):
        deformable = dcn_on_last_conv and index == depth - 1
        layers.append(
            ConvModule(
                channels if index else in_channels,
                channels,
                3,
                padding=1,
                conv_cfg={'type': 'DCNv2'} if deformable else conv_cfg,
                norm_cfg=norm_cfg,
            )
        )
    return nn.ModuleList(layers)
