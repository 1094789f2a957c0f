"""Bad input: one sentence with the offending value and the way out, exit code 2, no traceback."""

import json
import os

import pytest
import torch
from pycocotools.coco import COCO
from tiny_coco import load_tool


def _sentence(code: int, said: str) -> str:
    """The only line on stderr besides libraries' warnings."""
    assert code == 2, said
    assert 'Traceback' not in said
    errors = [line for line in said.splitlines() if line.startswith('error')]
    assert len(errors) == 1, said
    return errors[0]


@pytest.fixture
def refused(in_process):
    def run(script: str, *args: object) -> str:
        return _sentence(*in_process(script, *args))

    return run


def _annotate(tiny, split: str = 'train', **changes: object) -> None:
    content = tiny.coco(split)
    content['annotations'][1].update(changes)
    tiny.write(f'{split}.json', content)


def test_missing_files(tiny, refused, in_process):
    assert f"{tiny.root}/tinny.py does not exist (did you mean 'tiny.py'?)" in refused(
        'train.py', tiny.root / 'tinny.py'
    )
    assert 'checkpoint gone.pth does not exist' in refused('test.py', tiny.config, 'gone.pth')
    assert 'checkpoint gone.pth does not exist' in refused('train.py', tiny.config, '--resume', 'gone.pth')
    load_from = 'load_from=gone.pth'
    assert 'checkpoint gone.pth does not exist' in refused(
        'train.py', tiny.config, '--cfg-options', load_from
    )

    metric = 'val_evaluator.ann_file=gone.json'
    said = refused('train.py', tiny.config, '--cfg-options', metric)
    assert 'val_evaluator: annotation file gone.json does not exist' in said
    other = f'val_evaluator.ann_file={tiny.root}/train.json'
    _, said = in_process('train.py', tiny.config, '--cfg-options', other, 'model.neck.in_channels=8')
    assert f'note: val_evaluator compares with {tiny.root}/train.json, while its dataset reads' in said

    (tiny.root / 'images' / 'train_2.png').unlink()
    said = refused('train.py', tiny.config)
    missing = f'{tiny.root}/train.json is missing, first {tiny.root}/images/train_2.png'
    assert f'train_dataloader: an image of {missing}' in said
    (tiny.root / 'images').rename(tiny.root / 'elsewhere')
    assert f'image folder {tiny.root}/images does not exist' in refused('train.py', tiny.config)
    (tiny.root / 'val.json').unlink()
    images = 'train_dataloader.dataset.data_prefix.img=elsewhere/'
    content = tiny.coco('train')
    content['images'] = [image for image in content['images'] if image['id'] != 3]
    content['annotations'] = [ann for ann in content['annotations'] if ann['image_id'] != 3]
    tiny.write('train.json', content)
    said = refused('train.py', tiny.config, '--cfg-options', images)
    assert f'val_dataloader: annotation file {tiny.root}/val.json does not exist' in said
    (tiny.root / 'train.json').unlink()
    assert f'train_dataloader: annotation file {tiny.root}/train.json does not exist' in refused(
        'train.py', tiny.config
    )


def test_annotations(tiny, refused):
    classes = "train_dataloader.dataset.metainfo.classes=('box','disk')"
    said = refused('train.py', tiny.config, '--cfg-options', classes)
    assert "the class 'disk' of the config is not among the categories" in said
    assert "did you mean 'disc'?" in said

    two = 'model.bbox_head.num_classes=3'
    assert 'num_classes is 3, but the dataset of train_dataloader has 2 classes' in refused(
        'train.py', tiny.config, '--cfg-options', two
    )
    sound = tiny.coco('train')
    for changes, expected in [
        ({'bbox': [4, 30, -30, 30]}, 'annotation 2 of .* has an inverted box .*: [4, 30, -30, 30]'),
        ({'bbox': [4, float('nan'), 30, 30]}, 'annotation 2 of .* not finite: [4, nan, 30, 30]'),
        ({'image_id': 99}, 'annotation 2 of .* names image id 99'),
        ({'category_id': 99}, 'annotation 2 of .* names category id 99'),
    ]:
        tiny.write('train.json', sound)
        _annotate(tiny, **changes)
        said = refused('train.py', tiny.config)
        assert all(part in said for part in (*expected.split('.*'), f'{tiny.root}/train.json')), said
    tiny.write('train.json', sound)
    _annotate(tiny, 'val', bbox=[30, 24, 24, -1])
    said = refused('train.py', tiny.config)
    assert 'val_dataloader: annotation 2' in said


def test_a_byte_order_mark(tiny, refused):
    """Which pycocotools cannot read; it is the one that mmdet reads and scores by."""
    path, text = tiny.root / 'train.json', json.dumps(tiny.coco('train'))
    for mark in (b'\xef\xbb\xbf', b'\xff\xfe'):
        path.write_bytes(mark + text.encode('utf-8' if len(mark) == 3 else 'utf-16-le'))
        with pytest.raises(ValueError):
            COCO(str(path))
        said = refused('train.py', tiny.config)
        assert f'annotation file {path} begins with a byte order mark, which pycocotools cannot read' in said


def test_empty_training_sets(tiny, refused):
    content = tiny.coco('train')
    tiny.write('train.json', {**content, 'annotations': []})
    assert 'none of the 4 images of' in refused('train.py', tiny.config)
    unfiltered = 'train_dataloader.dataset.filter_cfg=None'
    said = refused('train.py', tiny.config, '--cfg-options', unfiltered)
    assert 'train_dataloader: its 4 images hold no box to train on' in said
    tiny.write('train.json', {**content, 'images': [], 'annotations': []})
    assert 'lists no image' in refused('train.py', tiny.config)


WRAPPED = """
_base_ = 'tiny.py'
_sound = _base_.train_dataloader.dataset
_other = dict(**{**_base_.train_dataloader.dataset, 'ann_file': 'other.json'})
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=2,
    dataset=dict(type='ConcatDataset', datasets=[
        dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=_sound),
        dict(type='MultiImageMixDataset', pipeline=[], dataset=_other)])))
"""


def test_datasets_inside_wrappers_are_checked(tiny, refused):
    config = tiny.write('wrapped.py', WRAPPED)
    content = tiny.coco('train')
    content['annotations'][0]['bbox'] = [1, 1, -1, 1]
    tiny.write('other.json', content)
    assert f'annotation 1 of {tiny.root}/other.json has an inverted box' in refused('train.py', config)


def test_datasets_of_other_kinds_are_passed_over(tiny):
    """A pickled list, a folder of XML files, LVIS: nothing of them is opened."""
    from mmengine.config import Config

    import atss_ext  # noqa: F401
    from atss_ext.cli.preflight import check_data

    gone = {'ann_file': 'gone', 'data_root': str(tiny.root)}
    for kind in ('VOCDataset', 'LVISV1Dataset', 'CocoPanopticDataset', 'NoSuchDataset'):
        check_data(Config({'train_dataloader': {'dataset': {'type': kind, **gone}}}), 'train_dataloader')
    remote = {'type': 'CocoDataset', 'ann_file': 's3://bucket/train.json'}
    check_data(Config({'train_dataloader': {'dataset': remote}}), 'train_dataloader')


def test_the_annotation_file_is_parsed_once(tiny, in_process, tmp_path, monkeypatch):
    """The dataset takes what the check has parsed; the metric parses its own, as mmdet has it."""
    import json

    parsed = []
    load = json.load

    def spy(stream, **rest):
        parsed.append(getattr(stream, 'name', None))
        return load(stream, **rest)

    monkeypatch.setattr(json, 'load', spy)
    code, said = in_process('train.py', tiny.config, '--work-dir', tmp_path / 'work')
    assert code == 0, said
    assert parsed.count(f'{tiny.root}/train.json') == 1
    assert parsed.count(f'{tiny.root}/val.json') == 2


@pytest.mark.parametrize(('damage', 'workers'), [('text', 0), ('empty', 1), ('cut', 0)])
def test_damaged_images_are_named(tiny, refused, damage, workers):
    path = tiny.root / 'images' / 'train_1.png'
    path.write_bytes({'text': b'no image', 'empty': b'', 'cut': path.read_bytes()[:2000]}[damage])
    said = refused('train.py', tiny.config, '--cfg-options', f'train_dataloader.num_workers={workers}')
    assert f'image {path} cannot be read' in said
    assert ('it is empty' in said) == (damage == 'empty')


def test_an_image_that_vanishes_during_the_run_is_named(tiny, refused, monkeypatch):
    monkeypatch.setattr('atss_ext.cli.preflight.check_images', lambda *args: None)
    path = tiny.root / 'images' / 'train_1.png'
    path.unlink()
    assert f'image {path} cannot be read (no such file)' in refused('train.py', tiny.config)


def test_cfg_options(tiny, refused):
    def said(*options: str) -> str:
        return refused('train.py', tiny.config, '--cfg-options', *options)

    assert "'model.bbox_head.num_classes' is no key=value pair" in said('model.bbox_head.num_classes', '=3')
    assert "'model..type=3' is no key=value pair" in said('model..type=3')
    assert 'close every bracket' in said('model.neck.in_channels=[8,16')
    assert "nothing reads a key 'num_clases' of model.bbox_head (did you mean 'num_classes'?)" in said(
        'model.bbox_head.num_clases=3'
    )
    assert "nothing reads a key 'optim_wraper' (did you mean 'optim_wrapper'?)" in said(
        'optim_wraper.type=SGD'
    )
    assert "nothing reads a key 'batchsize' of train_dataloader (did you mean 'batch_size'?)" in said(
        'train_dataloader.batchsize=4'
    )
    assert "nothing reads a key 'topkk' of model.train_cfg.assigner" in said(
        'model.train_cfg.assigner.topkk=4'
    )
    assert "'2' is no position in param_scheduler, which has 2 elements" in said('param_scheduler.2.gamma=1')
    assert 'model.bbox_head.num_classes.x does not fit the config' in said('model.bbox_head.num_classes.x=1')


def test_configs(tiny, refused):
    def said(text: str) -> str:
        return refused('train.py', tiny.write('bad.py', text), '--work-dir', tiny.root / 'work')

    assert "bad.py, line 3 cannot be read (NameError: name 'foo' is not defined)" in said(
        "_base_='tiny.py'\nx=1\ny=foo"
    )
    assert 'bad.py, line 2 cannot be read (SyntaxError' in said("_base_='tiny.py'\nx=(1")
    assert 'nobase.py' in said("_base_='nobase.py'")
    assert 'has no train_dataloader' in said("model=dict(type='ATSS')")
    assert 'does not say for which batch size' in refused('train.py', tiny.config, '--auto-scale-lr')
    wrong = "_base_='tiny.py'\nmodel=dict(bbox_head=dict(type='ATSSHed'))"
    assert "type 'ATSSHed' is in no registry of its kind (mmdet::model) (did you mean 'ATSSHead'?)" in said(
        wrong
    )
    assert "ATSSHead takes no key 'num_clases'" in said(
        "_base_='tiny.py'\nmodel=dict(bbox_head=dict(num_clases=2))"
    )
    assert '--out x.txt: the name has to end in .json' in refused(
        'test.py', tiny.config, 'x', '--out', 'x.txt'
    )
    assert '--launcher pytorch needs RANK in the environment' in refused(
        'train.py', tiny.config, '--launcher', 'pytorch'
    )
    no_pictures = tiny.write('plain.py', "_base_='tiny.py'\ndefault_hooks=dict(visualization=None)")
    torch.save({}, tiny.root / 'x.pth')
    show = ('test.py', no_pictures, tiny.root / 'x.pth', '--show-dir', 'x')
    assert 'has no default_hooks.visualization' in refused(*show)


def test_checkpoints(tiny, refused):
    """Not loaded: garbage, half a file, and one that could run code, which it does not get to do."""
    path = tiny.root / 'bad.pth'
    path.write_bytes(b'garbage' * 50)
    assert f'{path} cannot be read' in refused('test.py', tiny.config, path)
    torch.save({'state_dict': {'a': torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:700])
    assert f'{path} cannot be read' in refused('test.py', tiny.config, path)
    torch.save({'state_dict': {}, 'evil': _Evil()}, path)
    said = refused('test.py', tiny.config, path)
    assert str(path) in said
    assert 'system' in said
    assert 'could run code' in said


class _Evil:
    def __reduce__(self):
        return os.system, ('exit 3',)


def test_a_bug_keeps_its_traceback_and_names_the_log(tiny, in_process, tmp_path, monkeypatch):
    from atss_ext.models import ATSSHead

    def broken(self, *args, **kwargs):
        raise ZeroDivisionError('a bug')

    monkeypatch.setattr(ATSSHead, 'loss_by_feat', broken)
    code, said = in_process('train.py', tiny.config, '--work-dir', tmp_path / 'work')
    assert code == 1
    assert said.startswith('Traceback')
    assert 'ZeroDivisionError: a bug' in said
    last = said.splitlines()[-1]
    place = last.removeprefix('the log of this run, with this traceback: ')
    assert place.startswith(str(tmp_path / 'work'))
    with open(place) as log:
        assert 'ZeroDivisionError: a bug' in log.read()


def test_a_process_ends_with_one_line(tiny, run_tool, tmp_path):
    """The whole process, as a user starts it: nothing but the sentence on stderr, exit code 2."""
    _annotate(tiny, bbox=[4, 30, -30, 30])
    done = run_tool('train.py', tiny.config, cwd=tmp_path, fresh=True)
    assert done.returncode == 2
    assert done.stderr == (
        f'error: train_dataloader: annotation 2 of {tiny.root}/train.json has an inverted box (negative '
        'width or height): [4, 30, -30, 30]; COCO format is [x, y, width, height]: correct it, remove it, or '
        "mark it with 'ignore': 1\n"
    )


def test_an_interrupt_says_how_to_go_on(tiny, monkeypatch, in_process):
    def interrupted(cfg, chosen):
        raise KeyboardInterrupt

    monkeypatch.setattr(load_tool('train.py'), 'build_runner', interrupted)
    assert in_process('train.py', tiny.config) == (130, 'interrupted; training goes on with --resume\n')


NOT_COCO = """
from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS


@DATASETS.register_module()
class OwnFormat(BaseDetDataset):
    METAINFO = dict(classes=('box', 'disc'))

    def load_data_list(self):
        boxes = [[4.0, 4.0, 40.0, 40.0], [50.0, 8.0, 20.0, 30.0]]
        instances = [dict(bbox=box, bbox_label=0, ignore_flag=0) for box in boxes]
        path = f'{self.data_root}/images/train_0.png'
        return [dict(img_path=path, img_id=0, width=64, height=64, instances=instances)] * 2
"""


def test_bad_boxes_that_only_the_training_sees(tiny, refused, monkeypatch):
    """Of a dataset in a format that is not checked beforehand."""
    tiny.write('own_format.py', NOT_COCO)
    monkeypatch.syspath_prepend(str(tiny.root))
    config = tiny.write(
        'own.py',
        "_base_ = 'tiny.py'\ncustom_imports = dict(imports=['own_format'])\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='OwnFormat', "
        'data_root=_base_.data_root, pipeline=_base_.train_pipeline))\n',
    )
    said = refused('train.py', config)
    assert 'gt box 1 of image ' in said
    assert 'of the batch is [50.0, 8.0, 20.0, 30.0]: boxes must be finite xyxy' in said
    assert said.endswith('; correct or remove that annotation')


def test_an_assigner_that_does_not_fit(tiny, refused):
    said = refused(
        'train.py',
        tiny.config,
        '--cfg-options',
        'model.train_cfg.assigner.type=mmdet.ApproxMaxIoUAssigner',
        'model.train_cfg.assigner.pos_iou_thr=0.5',
        'model.train_cfg.assigner.neg_iou_thr=0.4',
    )
    assert 'ApproxMaxIoUAssigner' in said


def test_values_that_our_classes_refuse(tiny, refused):
    said = refused('train.py', tiny.config, '--cfg-options', 'model.train_cfg.assigner.topk=0')
    assert said == 'error: topk must be at least 1, got 0: the paper uses 9'
    said = refused('train.py', tiny.config, '--cfg-options', 'model.bbox_head.reg_decoded_bbox=False')
    assert 'GIoULoss compares boxes, but reg_decoded_bbox=False regresses deltas: remove that key' in said


def test_shapes_of_another_world(tiny, refused, tmp_path):
    """The dataset itself finds the order wrong; the check before it has only noted it."""
    from atss_ext.datasets import ShapesSpec, write_coco

    write_coco(tmp_path / 'shapes', 'train', 2, ShapesSpec(), 0)
    names = list(ShapesSpec().category_names)
    config = tiny.write(
        'shapes.py',
        "_base_ = 'tiny.py'\ntrain_dataloader = dict(dataset=dict(_delete_=True, "
        f"type='atss_ext.ShapesDataset', metainfo=dict(classes={names[::-1]}), "
        f"data_root='{tmp_path}/shapes/', ann_file='train/annotations.json', "
        "data_prefix=dict(img='train/images/'), pipeline=_base_.train_pipeline))\n"
        f'model = dict(bbox_head=dict(num_classes={len(names)}))\nval_cfg = None\n'
        'val_dataloader = None\nval_evaluator = None\n',
    )
    said = refused('train.py', config)
    assert f'{tmp_path}/shapes/train/annotations.json has its categories in another order' in said


def test_a_missing_program_is_named(tmp_path, monkeypatch, capfd):
    """Slurm's scontrol, where --launcher slurm looks for the first node."""
    from atss_ext.cli import run_tool
    from atss_ext.cli.runner import _first_node

    monkeypatch.setenv('PATH', str(tmp_path))
    assert run_tool(_first_node) == 2
    assert capfd.readouterr().err == (
        'error: the program scontrol is not found; install it, or add its folder to PATH\n'
    )
