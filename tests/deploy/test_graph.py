"""The graph that is exported finds, in PyTorch, exactly what mmdet's predict finds."""

import numpy as np
import pytest
import torch
from tiny_detectors import scene, tiny_config, tiny_model, with_head

from atss_ext.deploy.check import predict
from atss_ext.deploy.graph import DetectorGraph
from atss_ext.errors import UserError

SIZES = ((96, 128), (100, 75), (33, 190))
HEAD, TEST = 'model.bbox_head.', 'model.test_cfg.'
POINT = {f'{HEAD}regression': 'point', f'{HEAD}centerness': False}
CASES = {
    'ATSSHead': lambda: tiny_config(),
    'ATSSHead official': lambda: tiny_config(**{f'{TEST}inference': 'official'}),
    'official, no limits': lambda: tiny_config(
        **{f'{TEST}inference': 'official', f'{TEST}nms_pre': -1, f'{TEST}max_per_img': -1}
    ),
    'points, no centerness': lambda: tiny_config(**POINT),
    'official without centerness': lambda: tiny_config(**POINT, **{f'{TEST}inference': 'official'}),
    'class-agnostic NMS, least size': lambda: tiny_config(
        **{f'{TEST}nms.class_agnostic': True, f'{TEST}min_bbox_size': 12}
    ),
    'RGB given, no normalisation': lambda: tiny_config(
        **{'model.data_preprocessor': {'type': 'DetDataPreprocessor', 'pad_size_divisor': 16, 'pad_value': 7}}
    ),
    'mmdet ATSSHead': lambda: with_head('mmdet.ATSSHead'),
    'RetinaHead': lambda: with_head('mmdet.RetinaHead'),
    'FCOSHead': lambda: with_head('mmdet.FCOSHead'),
}


@pytest.mark.parametrize('case', CASES)
def test_finds_what_mmdet_finds(case):
    cfg = CASES[case]()
    if case == 'RGB given, no normalisation':
        cfg.model.data_preprocessor.pop('_delete_', None)
        for key in ('mean', 'std', 'bgr_to_rgb'):
            cfg.model.data_preprocessor.pop(key, None)
    model = tiny_model(cfg)
    graph = DetectorGraph(model).eval()
    found = 0
    for size in SIZES:
        for index in range(2):
            image = scene(size, index)
            wanted = predict(model, image)
            with torch.no_grad():
                boxes, scores, labels = (part.numpy() for part in graph(torch.from_numpy(image)))
            np.testing.assert_array_equal(labels, wanted.labels)
            np.testing.assert_allclose(boxes, wanted.boxes, rtol=0, atol=1e-5)
            np.testing.assert_allclose(scores, wanted.scores, rtol=0, atol=1e-6)
            found += len(labels)
    assert found > 30


def test_settings_of_the_cases_matter():
    """Two cases that gave the same detections would test one thing."""
    image = scene((96, 128), 0)
    plain = tiny_model(tiny_config())
    for options in ({f'{TEST}inference': 'official'}, {f'{TEST}nms.class_agnostic': True}):
        other = tiny_model(tiny_config(**options))
        other.load_state_dict(plain.state_dict())
        a, b = predict(plain, image).scores, predict(other, image).scores
        assert len(a) != len(b) or np.abs(a - b).max() > 0.01


def test_detectors_that_predict_in_another_way_are_refused():
    with pytest.raises(UserError, match=r'GFLHead cannot be exported; what can are one-stage'):
        DetectorGraph(tiny_model(with_head('mmdet.GFLHead')))
    with pytest.raises(UserError, match=r'detector of type Linear cannot be exported'):
        DetectorGraph(torch.nn.Linear(1, 1))
    soft = tiny_config(**{f'{TEST}nms.type': 'soft_nms'})
    with pytest.raises(UserError, match=r"'soft_nms'.* cannot be exported; set nms="):
        DetectorGraph(tiny_model(soft))
