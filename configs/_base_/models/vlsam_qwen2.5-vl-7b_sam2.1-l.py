_base_ = './vlsam_llava1.5-7b_sam-vit-h.py'

model = dict(
    vlm=dict(model='Qwen/Qwen2.5-VL-7B-Instruct'),
    segmenter=dict(model='facebook/sam2.1-hiera-large'),
)
