"""tools/test.py: what it writes, and how it treats checkpoints."""

import json
import pickle

import pytest
import torch


@pytest.fixture
def checkpoint(tiny):
    """Random weights of the tiny config's model."""
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import atss_ext  # noqa: F401

    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(tiny.config).model)
    model.init_weights()
    path = tiny.root / 'weights.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def test_json_is_what_mmdets_own_metric_writes(tiny, checkpoint, in_process, tmp_path):
    """The same entries as CocoMetric's, which writes them in its own way."""
    out, own = tmp_path / 'deep' / 'out.json', tmp_path / 'own'
    code, said = in_process(
        'test.py',
        tiny.config,
        checkpoint,
        '--out',
        out,
        '--cfg-options',
        f'test_evaluator.outfile_prefix={own}',
    )
    assert code == 0, said
    found, expected = json.loads(out.read_text()), json.loads((tmp_path / 'own.bbox.json').read_text())
    assert len(found) == 10
    assert [(e['image_id'], e['category_id'], e['score']) for e in found] == [
        (e['image_id'], e['category_id'], e['score']) for e in expected
    ]
    for one, other in zip(found, expected, strict=True):
        # CocoMetric subtracts corners in float32.
        assert one['bbox'] == pytest.approx(other['bbox'], abs=1e-4)


def test_json_uses_the_category_ids_of_the_file(tiny, checkpoint, in_process, tmp_path):
    content = tiny.coco('val')
    for item, key in [(c, 'id') for c in content['categories']] + [
        (a, 'category_id') for a in content['annotations']
    ]:
        item[key] *= 50
    tiny.write('val.json', content)
    code, said = in_process('test.py', tiny.config, checkpoint, '--out', tmp_path / 'out.json')
    assert code == 0, said
    assert {entry['category_id'] for entry in json.loads((tmp_path / 'out.json').read_text())} <= {50, 100}


def test_pickle_and_pictures(tiny, checkpoint, in_process, tmp_path):
    """.pkl holds what mmdet's analysis tools read; --show-dir holds a picture an image."""
    out = tmp_path / 'out.pkl'
    code, said = in_process(
        'test.py',
        tiny.config,
        checkpoint,
        '--out',
        out,
        '--show-dir',
        'pictures',
        '--work-dir',
        tmp_path / 'work',
    )
    assert code == 0, said
    samples = pickle.loads(out.read_bytes())  # noqa: S301 - written by this test
    assert [sample['img_id'] for sample in samples] == [1, 2]
    assert all(sample['pred_instances']['bboxes'].shape == (5, 4) for sample in samples)
    assert len(list(tmp_path.glob('work/*/pictures/*.png'))) == 2


def test_tta_shows_each_image_twice(tiny, checkpoint, in_process, monkeypatch, tmp_path):
    from mmdet.models import DetTTAModel

    views = []
    merge = DetTTAModel._merge_single_sample

    def spy(self, samples):
        views.append([(sample.img_id, sample.flip) for sample in samples])
        return merge(self, samples)

    monkeypatch.setattr(DetTTAModel, '_merge_single_sample', spy)
    code, said = in_process('test.py', tiny.config, checkpoint, '--tta', '--out', tmp_path / 'out.json')
    assert code == 0, said
    assert views == [[(1, True), (1, False)], [(2, True), (2, False)]]
    assert 'note: --tta: the config has no tta_model' in said
    assert 'match the checkpoint' not in said  # the wrapped model's names are the checkpoint's


def test_a_checkpoint_that_fits_in_part_is_counted(tiny, checkpoint, in_process):
    """Of 133 tensors two are of other shape, one is missing, one is extra."""
    state = torch.load(checkpoint)['state_dict']
    state['bbox_head.atss_cls.weight'] = torch.zeros(7, 16, 3, 3)
    state['bbox_head.atss_cls.bias'] = torch.zeros(7)
    state['other.weight'] = state.pop('bbox_head.atss_reg.bias')
    torch.save({'state_dict': {f'module.{key}': value for key, value in state.items()}}, checkpoint)
    code, said = in_process('test.py', tiny.config, checkpoint)
    assert code == 0, said
    note = next(line for line in said.splitlines() if line.startswith('note: '))
    assert note == (
        'note: 130 of the 133 tensors of the model match the checkpoint: 1 are not in the file (first '
        "'bbox_head.atss_reg.bias'), 2 have another shape there (first 'bbox_head.atss_cls.weight': (7, 16, "
        "3, 3) instead of (2, 16, 3, 3)), 1 of the file are not in the model (first 'other.weight')"
    )


def test_a_checkpoint_of_another_model_is_refused(tiny, in_process):
    path = tiny.root / 'other.pth'
    torch.save({'state_dict': {'encoder.weight': torch.zeros(2)}}, path)
    code, said = in_process('test.py', tiny.config, path)
    assert code == 2
    assert said.splitlines()[-1].startswith('error: 0 of the 133 tensors of the model match the checkpoint')


def test_a_checkpoint_of_a_relative_may_begin_a_training_and_is_not_tested(tiny, checkpoint, in_process):
    """Its backbone has other layers, of which mmengine would leave random weights."""
    state = torch.load(checkpoint)['state_dict']
    layers = [key for key in state if key.startswith('backbone.layer4') and 'num_batches' not in key]
    for key in layers:
        state[key] = torch.zeros(3)
    torch.save({'state_dict': state}, checkpoint)
    code, said = in_process('test.py', tiny.config, checkpoint)
    assert (len(layers), code) == (25, 2)
    sentence = '108 of the 133 tensors of the model match the checkpoint: 25 have another shape there'
    assert said.splitlines()[-1].startswith(f'error: {sentence}')
    more = ('--work-dir', tiny.root / 'work', '--cfg-options', f'load_from={checkpoint}')
    code, said = in_process('train.py', tiny.config, *more)
    assert code == 0, said
    assert f'note: {sentence}' in said


@pytest.mark.slow
@pytest.mark.parametrize('config', ['retinanet/retinanet_r18_fpn_1x_coco.py', 'atss/atss_r50_fpn_1x_coco.py'])
def test_mmdets_own_configs_run_unchanged(tiny, run_tool, tmp_path, config):
    """Training and testing of a stock config, by its package name, with data put in by options alone."""
    options = [
        f'train_dataloader.dataset.data_root={tiny.root}/', f'val_dataloader.dataset.data_root={tiny.root}/',
        f'test_dataloader.dataset.data_root={tiny.root}/', 'train_dataloader.dataset.ann_file=train.json',
        'val_dataloader.dataset.ann_file=val.json', 'test_dataloader.dataset.ann_file=val.json',
        'train_dataloader.dataset.data_prefix.img=images/', 'val_dataloader.dataset.data_prefix.img=images/',
        'test_dataloader.dataset.data_prefix.img=images/', f'val_evaluator.ann_file={tiny.root}/val.json',
        f'test_evaluator.ann_file={tiny.root}/val.json',
        "train_dataloader.dataset.metainfo.classes=('box','disc')",
        "val_dataloader.dataset.metainfo.classes=('box','disc')",
        "test_dataloader.dataset.metainfo.classes=('box','disc')", 'model.bbox_head.num_classes=2',
        'model.backbone.init_cfg=None', 'model.test_cfg.score_thr=0.0', 'train_cfg.max_epochs=1',
    ]  # fmt: skip
    config = f'mmdet::{config}'
    done = run_tool('train.py', config, '--work-dir', 'work', '--cfg-options', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_tool('test.py', config, 'work/epoch_1.pth', '--cfg-options', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'coco/bbox_mAP' in done.stdout
