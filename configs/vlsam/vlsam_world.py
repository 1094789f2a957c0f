_base_ = [
    '../_base_/vlsam_runtime.py',
    '../_base_/models/vlsam_world.py',
    '../_base_/datasets/open_ended_images.py',
]
