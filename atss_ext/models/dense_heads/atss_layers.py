"""What the layers of the ATSS head are and what they predict."""

from typing import Any

import torch
from mmcv.cnn import Scale
from mmdet.models.dense_heads import ATSSHead as MMDetATSSHead
from torch import Tensor, nn

from atss_ext.models.dense_heads.towers import conv_tower


class ATSSLayers(MMDetATSSHead):
    """The architecture of ``mmdet.ATSSHead``, of whose parts some may be left away or changed.

    Names and shapes of weights are mmdet's. What the attributes mean says
    :class:`~atss_ext.models.dense_heads.ATSSHead`, which sets them.

    Attributes:
        regression: 'box' or 'point'.
        centerness: whether there is that branch.
        scale_per_level: whether box predictions are multiplied by a learned number a level.
        dcn_on_last_conv: whether both towers end in a deformable convolution.
    """

    regression: str
    centerness: bool
    scale_per_level: bool
    dcn_on_last_conv: bool
    bbox_coder: Any

    def _init_layers(self) -> None:
        """Makes the layers, called by mmdet's constructor; names are those of ``mmdet.ATSSHead``."""
        self.cls_convs = self._tower()
        self.reg_convs = self._tower()
        self.atss_cls = self._predictor(self.cls_out_channels)
        self.atss_reg = self._predictor(4)
        if self.centerness:
            self.atss_centerness = self._predictor(1)
        self.scales = nn.ModuleList(
            Scale(1.0) if self.scale_per_level else nn.Identity() for _ in self.prior_generator.strides
        )

    def _tower(self) -> nn.ModuleList:
        return conv_tower(
            self.in_channels,
            self.feat_channels,
            self.stacked_convs,
            self.conv_cfg,
            self.norm_cfg,
            self.dcn_on_last_conv,
        )

    def _predictor(self, channels: int) -> nn.Conv2d:
        """The convolution that predicts ``channels`` numbers an anchor."""
        size = self.pred_kernel_size
        return nn.Conv2d(self.feat_channels, self.num_base_priors * channels, size, padding=size // 2)

    def init_weights(self) -> None:
        """Initialises as ``init_cfg`` says; distances from points begin at the anchors' own sides.

        The official ``atss.py`` begins at 4 strides, which are the sides of its anchors of 8.
        """
        first = not self.is_init  # mmengine ignores a second call, which may follow a checkpoint
        super().init_weights()
        if first and self.regression == 'point':
            half = torch.tensor(self.bbox_coder.sides * 2) / 2  # left, top, right, bottom
            with torch.no_grad():
                self.atss_reg.bias.copy_(half)  # type: ignore[union-attr]

    def forward_single(self, x: Tensor, scale: nn.Module) -> tuple[Tensor, Tensor, Tensor | None]:
        """Predictions of one level.

        Args:
            x: [B, C, H, W] features.
            scale: of the level.

        Returns:
            Class logits [B, A * classes, H, W], deltas [B, A * 4, H, W] and centerness logits [B, A, H, W],
            None without that branch.
        """
        cls_feat = reg_feat = x
        for layer in self.cls_convs:
            cls_feat = layer(cls_feat)
        for layer in self.reg_convs:
            reg_feat = layer(reg_feat)
        deltas = scale(self.atss_reg(reg_feat)).float()
        if self.regression == 'point':
            deltas = deltas.relu()
        centerness = self.atss_centerness(reg_feat) if self.centerness else None
        return self.atss_cls(cls_feat), deltas, centerness

    def forward(  # type: ignore[override]
        self, x: tuple[Tensor, ...]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
        """Predictions of all levels, see :meth:`forward_single`; None for centerness without that branch."""
        levels = [self.forward_single(level, scale) for level, scale in zip(x, self.scales, strict=True)]
        classes, deltas, centerness = (list(outputs) for outputs in zip(*levels, strict=True))
        return classes, deltas, centerness if self.centerness else None
