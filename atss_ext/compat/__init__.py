"""What lets mmdet run on today's torch.

``mmcv_finder`` offers ``mmcv._ext`` where no compiled mmcv is, ``mmcv_ops`` backs it with
torchvision, ``config_scope`` lets mmengine inherit ``atss_ext::`` configs, ``checkpoints`` lets
torch's restricted unpickler read mmengine checkpoints.
"""

from atss_ext.compat import checkpoints, config_scope, mmcv_finder

__all__ = ['apply']


def apply() -> None:
    """Install the import hooks and allow the classes of mmengine checkpoints; safe to call again."""
    mmcv_finder.install()
    config_scope.install()
    checkpoints.allow_mmengine_classes()
