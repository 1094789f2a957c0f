# CODA (the base benchmark): 1,500 images of road corner cases. The model sees images alone; its names are
# brought to the file's categories by the metric, which needs them for COMMON.
_base_ = './open_ended_images.py'

test_dataloader = dict(
    dataset=dict(data_root='data/coda/', ann_file='corner_case.json', data_prefix=dict(img='images/'))
)
test_evaluator = dict(
    _delete_=True,
    type='atss_ext.NamedMetric',
    metric=dict(type='atss_ext.CodaMetric', ann_file='data/coda/corner_case.json'),
    mapper=dict(encoder=dict(type='atss_ext.ClipEncoder')),
    # A detection without a category counts where names do not.
    unmapped='keep',
)
