# CODA (the base benchmark): 1,500 images of road corner cases.
_base_ = './open_ended_images.py'

test_dataloader = dict(
    dataset=dict(data_root='data/coda/', ann_file='corner_case.json', data_prefix=dict(img='images/'))
)
