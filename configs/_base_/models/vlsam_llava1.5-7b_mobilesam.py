# MobileSAM comes from its own package, which is installed by hand, and a checkpoint file.
_base_ = './vlsam_llava1.5-7b_sam-vit-h.py'

model = dict(
    segmenter=dict(
        _delete_=True,
        type='atss_ext.PredictorSegmenter',
        package='mobile_sam',
        model_type='vit_t',
        checkpoint='checkpoints/mobile_sam.pt',
    )
)
