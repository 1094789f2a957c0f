# SODA10M's labelled part as what a detector trains and is validated on instead of COCO: a config takes these
# and lets them replace what it inherits. Names are spelled as in its files; CODA spells the same six in small
# letters, which the aliases bring together.
soda10m_root = 'data/soda10m/'
soda10m_classes = ('Pedestrian', 'Cyclist', 'Car', 'Truck', 'Tram', 'Tricycle')

soda10m_train_dataset = dict(
    metainfo=dict(classes=soda10m_classes),
    data_root=soda10m_root,
    ann_file='annotations/instance_train.json',
    data_prefix=dict(img='train/'),
)
soda10m_val_dataset = dict(
    soda10m_train_dataset, ann_file='annotations/instance_val.json', data_prefix=dict(img='val/')
)
soda10m_evaluator = dict(ann_file=soda10m_root + 'annotations/instance_val.json')
soda10m_aliases = dict(
    Pedestrian='pedestrian', Cyclist='cyclist', Car='car', Truck='truck', Tram='tram', Tricycle='tricycle'
)
