# The paper's setting as far as its models exist in transformers: it had CogVLM-17B, which is not there; LLaVA
# is in its table of swaps. Every other value is the paper's, or the default of VL-SAM where it gives none.
model = dict(
    type='atss_ext.VLSAM',
    vlm=dict(type='atss_ext.TransformersVLM', model='llava-hf/llava-1.5-7b-hf', temperature=0.8, top_p=0.1),
    segmenter=dict(type='atss_ext.TransformersSegmenter', model='facebook/sam-vit-huge'),
)
