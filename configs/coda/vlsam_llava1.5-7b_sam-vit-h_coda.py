_base_ = [
    '../_base_/vlsam_runtime.py',
    '../_base_/models/vlsam_llava1.5-7b_sam-vit-h.py',
    '../_base_/datasets/coda_images.py',
]
