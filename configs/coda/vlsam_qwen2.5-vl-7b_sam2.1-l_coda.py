_base_ = [
    '../_base_/vlsam_runtime.py',
    '../_base_/models/vlsam_qwen2.5-vl-7b_sam2.1-l.py',
    '../_base_/datasets/coda_images.py',
]
