# The small models that come with the package: coloured shapes in pictures of 64 x 64 pixels, offline.
_base_ = './vlsam_llava1.5-7b_sam-vit-h.py'

# The settings of the steps were chosen on the split "rules" of the world, see docs/prompt_study.md.
model = dict(
    vlm=dict(model='atss_ext::vlsam/world/weights/vlm', max_new_tokens=64, batch_size=10),
    segmenter=dict(model='atss_ext::vlsam/world/weights/sam'),
    rows='generating-first',
    flow=dict(flow='none'),
    prompts=dict(contrast='mean', position='centroid', smoothing=1.0, threshold=0.7),
)
