"""Published files: what is in them, that mmdet and the tools take them, and what is refused."""

import copy
import errno
import hashlib
import json
import os
import re
import struct

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint
from safetensors import safe_open
from tiny_detectors import (
    CLASSES,
    CONFIG,
    ROOT,
    SMALL,
    as_options,
    full_disk,
    scene,
    tiny_config,
    with_head,
)

from atss_ext.compat.checkpoints import load_from_local
from atss_ext.deploy import publish
from atss_ext.deploy.check import predict
from atss_ext.deploy.checkpoint import read_checkpoint
from atss_ext.deploy.publish import write_safetensors
from atss_ext.errors import UserError


@pytest.fixture(scope='module')
def published(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp('published') / 'model.safetensors'
    return publish(str(checkpoint), out)


def metadata_of(path):
    with safe_open(path, 'pt') as file:
        return file.metadata()


def test_holds_weights_config_and_names_and_nothing_else(published, official, checkpoint):
    cfg, model = official
    with safe_open(published.path, 'pt') as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    state = model.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert set(metadata) == {'atss_ext', 'config', 'dataset_meta', 'format', 'sha256'}
    assert json.loads(metadata['dataset_meta'])['classes'] == list(CLASSES)
    assert json.loads(metadata['dataset_meta'])['palette'][2] == [2, 4, 6]
    assert Config.fromstring(metadata['config'], '.py').model.to_dict() == cfg.model.to_dict()
    # AdamW keeps two numbers a weight.
    assert published.path.stat().st_size < 0.4 * checkpoint.stat().st_size


def test_hash_is_of_names_types_shapes_and_values(published, official):
    digest = hashlib.sha256()
    for name, value in sorted(official[1].state_dict().items()):
        array = value.numpy()
        kind = {'float32': 'torch.float32', 'int64': 'torch.int64'}[str(array.dtype)]
        digest.update(json.dumps([name, kind, list(array.shape)]).encode() + array.tobytes())
    assert metadata_of(published.path)['sha256'] == published.sha256 == digest.hexdigest()


def test_same_input_same_bytes(published, checkpoint, tmp_path):
    first = published.path.read_bytes()
    for number in range(4):  # the library's own order of the metadata is random
        again = publish(str(checkpoint), tmp_path / f'{number}.safetensors')
        assert again.path.read_bytes() == first
    assert sorted(os.listdir(tmp_path)) == [f'{number}.safetensors' for number in range(4)]


def test_weights_of_the_run_and_its_folders_stay_at_home(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=False)
    content['meta']['cfg'] += (
        "\nwork_dir = '/home/someone/secret'\nload_from = (\n    '/home/x.pth')\nafter = 1\n"
    )
    content['state_dict'] = {f'module.{name}': value for name, value in content['state_dict'].items()}
    torch.save(content, tmp_path / 'run.pth')
    done = publish(str(tmp_path / 'run.pth'), tmp_path / 'run.safetensors', hash_name=True)
    assert done.path.name == f'run-{done.sha256[:8]}.safetensors'
    text = metadata_of(done.path)['config']
    assert '/home' not in text
    assert Config.fromstring(text, '.py').after == 1
    with safe_open(done.path, 'pt') as file:
        assert not [name for name in file.keys() if name.startswith('module.')]  # noqa: SIM118


class Numbers(torch.utils.data.Dataset):
    metainfo = {'classes': ('a', 'b')}  # noqa: RUF012 - as mmengine has it

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {'x': torch.full((4,), float(index))}


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(4, 1)

    def forward(self, x, mode='tensor'):
        return {'loss': (self.line(x) - 1).square().mean()}


def test_averages_are_published_where_training_kept_them(tmp_path):
    """EMAHook tests with its averages: the reference is its own model, not the file."""
    runner = Runner(
        Line(), str(tmp_path),
        train_dataloader={
            'batch_size': 4, 'dataset': Numbers(), 'sampler': {'type': DefaultSampler, 'shuffle': False},
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg={'by_epoch': True, 'max_epochs': 2},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.01}},
        custom_hooks=[{'type': 'EMAHook', 'momentum': 0.2}], default_scope='mmengine', log_level='ERROR',
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'interval': 1}}, experiment_name='averages',
    )  # fmt: skip
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
    done = publish(str(tmp_path / 'epoch_2.pth'), tmp_path / 'ema.safetensors')
    tensors = load_from_local(str(done.path))['state_dict']
    assert tensors.keys() == {'line.weight', 'line.bias'}
    average = hook.ema_model.module.state_dict()
    for name, value in runner.model.state_dict().items():
        assert torch.equal(tensors[name], average[name])
        assert not torch.allclose(tensors[name], value)


def test_init_detector_takes_it(published, official, checkpoint):
    from mmdet.apis import inference_detector, init_detector

    cfg, model = official
    detector = init_detector(copy.deepcopy(cfg), str(published.path), device='cpu')
    assert detector.dataset_meta['classes'] == CLASSES
    image = scene((192, 256), 0)
    found = inference_detector(detector, image).pred_instances
    wanted = predict(model, image)
    np.testing.assert_allclose(found.scores.numpy(), wanted.scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.bboxes.numpy(), wanted.boxes, rtol=0, atol=1e-4)
    other = init_detector(copy.deepcopy(cfg), str(checkpoint), device='cpu')
    assert other.dataset_meta['classes'] == detector.dataset_meta['classes']


def test_config_is_compared_with_the_weights(checkpoint, official, tmp_path):
    cfg = official[0]
    done = publish(str(checkpoint), tmp_path / 'a.safetensors', cfg)
    assert done.classes == CLASSES
    with pytest.raises(UserError, match=r"does not fit the config: .* not in the model \(first 'bbox_head"):
        publish(str(checkpoint), tmp_path / 'b.safetensors', with_head('mmdet.RetinaHead'))
    with pytest.raises(UserError, match=r"'bbox_head.atss_cls.weight': \(8, 16, 3, 3\) instead of \(5, 16"):
        publish(
            str(checkpoint), tmp_path / 'b.safetensors', tiny_config(**{'model.bbox_head.num_classes': 5})
        )
    assert os.listdir(tmp_path) == ['a.safetensors']


def test_names_of_mmdet_2_are_kept(official, tmp_path):
    _, model = official
    meta = {'CLASSES': ('car', 'bus'), 'PALETTE': [(1, 2, 3), (4, 5, 6)], 'epoch': 12}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, tmp_path / 'old.pth')
    read = read_checkpoint(str(tmp_path / 'old.pth'))
    assert read.dataset_meta == {'classes': ('car', 'bus'), 'palette': [(1, 2, 3), (4, 5, 6)]}


def test_names_come_from_the_config_where_the_checkpoint_has_none(official, tmp_path):
    cfg, model = official
    torch.save(model.state_dict(), tmp_path / 'plain.pth')
    with pytest.raises(UserError, match=r'holds no class names .*--config'):
        publish(str(tmp_path / 'plain.pth'), tmp_path / 'x.safetensors')
    assert publish(str(tmp_path / 'plain.pth'), tmp_path / 'x.safetensors', cfg).classes == CLASSES


def damaged(path, tmp_path, how):
    content = bytearray(path.read_bytes())
    size = struct.unpack('<Q', content[:8])[0]
    if how == 'value':
        content[8 + size + 100] ^= 1
    if how == 'cut':
        content = content[:-1]
    if how == 'names':
        start = content.index(b'dataset_meta') + len('dataset_meta":"')
        content[start : start + 1] = b'['
    (tmp_path / 'damaged.safetensors').write_bytes(content)
    return str(tmp_path / 'damaged.safetensors')


@pytest.mark.parametrize(
    ('how', 'sentence'),
    [
        ('value', r'is damaged \(its tensors do not have the sha256 it states\)'),
        ('cut', r'cannot be read \(.+\): if it is damaged'),
        ('names', r'has a dataset_meta that cannot be read'),
    ],
)
def test_damage_is_noticed(published, official, tmp_path, how, sentence):
    path = damaged(published.path, tmp_path, how)
    with pytest.raises(Exception, match=sentence):
        load_checkpoint(official[1], path, map_location='cpu')


def test_damage_is_a_sentence_of_the_test_tool(published, tool, tmp_path):
    path = damaged(published.path, tmp_path, 'value')
    code, _, err = tool('test.py', ROOT / CONFIG, path, '--work-dir', tmp_path / 'w', *small_data(tmp_path))
    assert code == 2
    assert err.strip().splitlines()[-1].startswith(f'error: Checkpoint {path} is damaged')


def small_data(tmp_path):
    from atss_ext.datasets.shapes import ShapesSpec
    from atss_ext.datasets.shapes_coco import write_coco

    write_coco(tmp_path / 'shapes', 'val', 2, ShapesSpec(), 3)
    root = f'{tmp_path}/shapes/'
    loader = 'test_dataloader.'
    options = {
        **SMALL,
        'model.test_cfg.inference': 'official',
        f'{loader}dataset.data_root': root,
        f'{loader}num_workers': 0,
        f'{loader}persistent_workers': False,
        'test_evaluator.ann_file': f'{root}val/annotations.json',
    }
    return '--cfg-options', *as_options(options)


def test_test_tool_finds_the_same_with_it(published, checkpoint, tool, tmp_path):
    data, results = small_data(tmp_path), []
    for path in (published.path, checkpoint):
        out = tmp_path / f'{path.suffix[1:]}.json'
        code, _, err = tool('test.py', ROOT / CONFIG, path, '--out', out, '--work-dir', tmp_path / 'w', *data)
        assert code == 0, err
        results.append(json.loads(out.read_text()))
    assert results[0] == results[1]
    assert len(results[0]) > 20


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (
            ('missing.pth', '--out', 'x.safetensors'),
            'checkpoint missing.pth does not exist; correct the path',
        ),
        (('{checkpoint}', '--out', 'x.pth'), '--out x.pth: the name has to end in .safetensors'),
        (('{checkpoint}',), '--out is missing; name the file to write, such as --out model.safetensors'),
        (
            ('{checkpoint}', '--out', '{checkpoint}'),
            '--out {checkpoint} is a file that is read; choose another',
        ),
        (('{config}', '--out', 'x.safetensors'), 'Checkpoint {config} cannot be read'),
        (('{checkpoint}', '--config', 'no.py', '--out', 'x.safetensors'), 'config file no.py does not exist'),
        (('{checkpoint}', '--print-config'), 'Checkpoint {checkpoint} cannot be read'),
    ],
)
def test_mistakes_are_one_sentence(tool, checkpoint, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    words = {'checkpoint': checkpoint, 'config': ROOT / CONFIG}
    code, _, err = tool('publish.py', *(word.format(**words) for word in arguments))
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith('error: ' + sentence.format(**words))
    assert os.listdir(tmp_path) == []


def test_what_the_system_refuses_to_write_is_one_sentence(tool, checkpoint, tmp_path):
    out = tmp_path / 'x.safetensors'
    out.write_bytes(b'an older one')
    with full_disk(4096):
        code, text, err = tool('publish.py', checkpoint, '--out', out)
    assert (code, text) == (2, '')
    assert err == f'error: --out {out} cannot be written (File too large); choose another place\n'
    assert (os.listdir(tmp_path), out.read_bytes()) == (['x.safetensors'], b'an older one')
    # With the digits of --hash-name the name is too long.
    long = tmp_path / f'{"x" * 240}.safetensors'
    code, _, err = tool('publish.py', checkpoint, '--out', long, '--hash-name')
    assert code == 2
    assert re.fullmatch(
        r'error: --out \S+-[0-9a-f]{8}\.safetensors cannot be written \(File name too long\); choose another '
        r'place\n', err,
    )  # fmt: skip
    assert os.listdir(tmp_path) == ['x.safetensors']


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch):
    """As below /proc, where the system says that the folder does not exist."""

    def refuse(self, *args, **kwargs):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    monkeypatch.setattr(type(tmp_path), 'mkdir', refuse)
    out = tmp_path / 'x/x.safetensors'
    with pytest.raises(UserError) as caught:
        write_safetensors(out, W, {})
    assert str(caught.value) == (
        f'--out {out} cannot be written (No such file or directory); choose another place'
    )


W = {'a.weight': torch.ones(2)}
NO_STATE, NO_NAMES = 'holds no state_dict of tensors ', 'has class names that cannot be read '
FOREIGN = {
    'a list': ([1], 'holds a list instead of weights; name another'),
    'state': ({'state_dict': [1]}, f'{NO_STATE}(it is a list)'),
    'twice': (
        {'state_dict': {'module.g': torch.ones(1), 'b': torch.ones(1), 'g': torch.zeros(1)}},
        'has both module.g and g, which are one name without the wrapper; remove the wrong one',
    ),
    'empty': ({'state_dict': {}}, f'{NO_STATE}(it is empty)'),
    'number': ({'state_dict': {**W, 7: torch.ones(1)}}, f'{NO_STATE}(7 is no name)'),
    'half a letter': ({'state_dict': {'a\ud800': torch.ones(1)}}, f"{NO_STATE}('a\\ud800' is no name)"),
    'no tensor': ({'state_dict': {**W, 'b': 7}}, f"{NO_STATE}('b' is no tensor)"),
    'no values': ({'state_dict': {'b': torch.ones(1, device='meta')}}, f"{NO_STATE}('b' is no plain tensor)"),
    'complex': ({'b': torch.ones(1, dtype=torch.complex128)}, f"{NO_STATE}('b' is no plain tensor)"),
    'meta': ({'state_dict': W, 'meta': {'dataset_meta': [1]}}, f'{NO_NAMES}(dataset_meta is a list)'),
    'classes': ({'state_dict': W, 'meta': {'dataset_meta': {'classes': 5}}}, f'{NO_NAMES}(classes is a int)'),
    'class': (
        {'state_dict': W, 'meta': {'dataset_meta': {'classes': ['a', ['b']]}}},
        f'{NO_NAMES}(in classes there is a list that is no name)',
    ),
    'palette': (
        {'state_dict': W, 'meta': {'dataset_meta': {'classes': ['a'], 'palette': [['r']]}}},
        f'{NO_NAMES}(palette is no list of red, green and blue)',
    ),
    'infinite': (
        {'state_dict': W, 'meta': {'dataset_meta': {'classes': ['a'], 'palette': [[float('inf')] * 3]}}},
        f'{NO_NAMES}(palette is no list of red, green and blue)',
    ),
}


@pytest.mark.parametrize('name', FOREIGN)
@pytest.mark.parametrize('script', ['publish.py', 'export.py'])
def test_what_a_stranger_wrote_is_one_sentence(tool, tmp_path, monkeypatch, script, name):
    monkeypatch.chdir(tmp_path)
    content, sentence = FOREIGN[name]
    torch.save(content, 'foreign.pth')
    words = ('foreign.pth', '--out', 'x.safetensors')
    if script == 'export.py':
        words = (ROOT / CONFIG, 'foreign.pth', '--format', 'onnx', '--out', 'x.onnx')
    code, out, err = tool(script, *words)
    assert (code, out) == (2, '')
    assert err.startswith(f'error: checkpoint foreign.pth {sentence}')
    assert err.count('\n') == 1
    assert os.listdir(tmp_path) == ['foreign.pth']


DEEP = {
    'memory': 'x = ' + '-' * 100_000 + '1',
    'recursion': 'x = a' + '.b' * 100_000,
    'syntax': 'x = 1\ny = (',
    'null': 'x = 1\0',
}


@pytest.mark.parametrize('name', DEEP)
def test_a_kept_config_that_cannot_be_parsed_is_one_sentence(tool, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    meta = {'dataset_meta': {'classes': ['a']}, 'cfg': DEEP[name]}
    torch.save({'state_dict': W, 'meta': meta}, 'foreign.pth')
    code, _, err = tool('publish.py', 'foreign.pth', '--out', 'x.safetensors')
    assert (code, err.count('\n')) == (2, 1)
    assert err.startswith('error: the config that checkpoint foreign.pth keeps cannot be read (')
    assert err.endswith('); name it with --config\n')
    assert os.listdir(tmp_path) == ['foreign.pth']


@pytest.mark.parametrize('text', ['[' * 100_000, '{"classes": ["a"], "palette": [[1e999, 0, 0]]}', '{}', '5'])
def test_names_of_a_published_file_that_cannot_be_read(tool, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / 'a.safetensors', W, {'dataset_meta': text})
    code, _, err = tool('publish.py', 'a.safetensors', '--out', 'x.safetensors')
    assert code == 2
    assert err == (
        'error: Checkpoint a.safetensors has a dataset_meta that cannot be read: publish it again with '
        'tools/publish.py\n'
    )


def test_a_published_file_is_nothing_to_resume_from(published, tool, tmp_path):
    arguments = (ROOT / CONFIG, '--resume', published.path, '--work-dir', tmp_path / 'w')
    code, _, err = tool('train.py', *arguments)
    assert code == 2
    assert err.splitlines()[-1] == (
        f'error: --resume {published.path}: a .safetensors file has weights and no optimizer to go on with; '
        f'start from its weights with --cfg-options load_from={published.path}'
    )


def test_a_checkpoint_that_would_run_code_is_refused(tool, tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'),)

    torch.save({'state_dict': {}, 'meta': Trap()}, tmp_path / 'trap.pth')
    code, _, err = tool('publish.py', tmp_path / 'trap.pth', '--out', tmp_path / 'x.safetensors')
    assert (code, os.listdir(tmp_path)) == (2, ['trap.pth'])
    assert "mkdir', which no mmengine checkpoint needs" in err
