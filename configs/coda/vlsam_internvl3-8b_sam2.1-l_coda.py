_base_ = [
    '../_base_/vlsam_runtime.py',
    '../_base_/models/vlsam_internvl3-8b_sam2.1-l.py',
    '../_base_/datasets/coda_images.py',
]
