_base_ = './vlsam_llava1.5-7b_sam-vit-h.py'

model = dict(
    vlm=dict(model='OpenGVLab/InternVL3-8B-hf'),
    segmenter=dict(model='facebook/sam2.1-hiera-large'),
)
