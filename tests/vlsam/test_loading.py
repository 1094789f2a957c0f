"""Loading by a config or by names: where models go, what is refused before, what a store belongs to."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rule_models  # noqa: F401 - registers the stand-ins
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rule_segmenter import RuleSegmenter
from rule_vlm import RuleVLM
from tiny_predictor import SamPredictor, TinySam
from tiny_sams import tiny_sam
from tiny_vlms import tiny_vlm

import atss_ext
from atss_ext.registry import MODELS
from atss_ext.vlsam import Detections, PipelineOptions, VlsamError, load
from atss_ext.vlsam.fingerprints import fingerprint
from atss_ext.vlsam.loading import build
from atss_ext.vlsam.names import parse

ROOT = Path(__file__).resolve().parents[2]
ATSS = ROOT / 'configs/_base_/models/atss_r18_small.py'
VLM, SEGMENTER = {'type': 'atss_ext.RuleVLM'}, {'type': 'atss_ext.RuleSegmenter'}
OPTIONS = PipelineOptions()


@MODELS.register_module(force=True)
class PlacedVLM(RuleVLM):
    """Notes where it was told to load, and where it was moved."""

    def __init__(self, device='auto', load_options=None):
        super().__init__()
        self.loaded, self.moves = device, []

    def to(self, device):
        self.moves.append(device)


@MODELS.register_module(force=True)
class UnplacedSegmenter(RuleSegmenter):
    """Takes no device when it is built."""

    moved = None

    def to(self, device):
        self.moved = device


@MODELS.register_module(force=True)
class NeverBuilt:
    """Whatever is wrong is to be found before this."""

    def __init__(self, **_):
        raise AssertionError('it was built')


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmdet')


def config(vlm=VLM, segmenter=SEGMENTER, **settings) -> dict:
    return {'type': 'atss_ext.VLSAM', 'vlm': vlm, 'segmenter': segmenter, **settings}


@pytest.fixture(scope='module')
def folders(tmp_path_factory) -> Path:
    """Tiny models in half precision, as large ones come."""
    folder = tmp_path_factory.mktemp('models')
    for name, (model, processor) in {'vlm': tiny_vlm('llava'), 'sam': tiny_sam('sam')}.items():
        model.to(torch.bfloat16).save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


def test_models_are_loaded_where_they_are_wanted_and_nowhere_else(folders, monkeypatch):
    """On a machine that says it has a GPU, which torch then fails to find, or which holds half precision."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')  # mmengine's logger looks for its number
    pipeline = build(
        config(
            {'type': 'atss_ext.TransformersVLM', 'model': str(folders / 'vlm')},
            {'type': 'atss_ext.TransformersSegmenter', 'model': str(folders / 'sam')},
        ),
        'cpu',
    )
    for part in (pipeline.vlm, pipeline.segmenter):
        assert part.model.device == torch.device('cpu')
        assert part.model.dtype == torch.float32  # what 'auto' is on a CPU


def test_a_part_that_takes_no_device_is_moved():
    pipeline = build(config({'type': 'atss_ext.PlacedVLM'}, {'type': 'atss_ext.UnplacedSegmenter'}), 'meta')
    assert pipeline.vlm.loaded == 'meta'
    assert pipeline.segmenter.moved == 'meta'


def test_a_predictor_that_is_built_is_moved():
    segmenter = {'type': 'atss_ext.PredictorSegmenter', 'predictor': SamPredictor(TinySam())}
    assert build(config(segmenter=segmenter), 'meta').segmenter.device == torch.device('meta')


@pytest.mark.parametrize('own', [{'device': 'cpu'}, {'load_options': {'device_map': {'': 0}}}])
def test_a_part_that_names_its_device_stays_there(own):
    pipeline = build(
        config({'type': 'atss_ext.PlacedVLM', **own}, {'type': 'atss_ext.UnplacedSegmenter'}), 'meta'
    )
    assert pipeline.vlm.loaded == own.get('device', 'auto')
    assert pipeline.vlm.moves == []
    assert pipeline.segmenter.moved == 'meta'


def test_auto_leaves_the_choice_to_the_models_and_means_no_device_in_a_config():
    vlm = {'type': 'atss_ext.PlacedVLM', 'device': 'auto'}
    pipeline = build(config(vlm))
    assert (pipeline.vlm.loaded, pipeline.vlm.moves) == ('auto', [])
    assert build(config(vlm), 'meta').vlm.loaded == 'meta'


@pytest.mark.parametrize(
    ('settings', 'message'),
    [({'prompts': {'treshold': 1}}, "prompts knows no setting 'treshold'"), ({'rows': 'x'}, 'rows must be')],
)
def test_settings_are_refused_before_models_are_loaded(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path / 'none'), str(tmp_path / 'none'), device='cpu', **settings)
    with pytest.raises(ValueError, match=message):
        build(config({'type': 'atss_ext.NeverBuilt'}, **settings))
    (tmp_path / 'own.py').write_text(f'model = {config({"type": "atss_ext.NeverBuilt"})!r}')
    with pytest.raises(ValueError, match=message):
        load(tmp_path / 'own.py', **settings)


def test_a_store_of_other_settings_is_refused_before_models_are_loaded(tmp_path):
    store = MODELS.build(config(store=str(tmp_path))).store
    store.put('a.png', Detections(size=(4, 4)))
    with pytest.raises(VlsamError, match='results of other settings'):
        MODELS.build(config({'type': 'atss_ext.NeverBuilt'}, store=str(tmp_path)))


@pytest.mark.parametrize(
    ('device', 'message'),
    [
        ('gpu', r"torch knows no device 'gpu'; take one of those here: auto, cpu[^.]*\.$"),
        ('cuda:99', r"the device 'cuda:99' cannot be used \(.+\); take one of those here: auto, cpu[^.]*\.$"),
    ],
)
def test_a_device_that_is_not_there_is_refused_in_a_sentence(tmp_path, device, message):
    (tmp_path / 'own.py').write_text(f'model = {config({"type": "atss_ext.NeverBuilt"})!r}')
    calls = (
        lambda: build(config({'type': 'atss_ext.NeverBuilt'}), device),
        lambda: load('no-such/vlm', 'no-such/sam', device=device),
        lambda: load(tmp_path / 'own.py', device=device),
    )
    for call in calls:
        with pytest.raises(VlsamError, match=message):
            call()


def test_a_config_of_another_model_is_refused(tmp_path):
    with pytest.raises(VlsamError, match=r'^the model ATSS is not one of VL-SAM; take one of '):
        build(Config.fromfile(ATSS).model)
    for text in ("model = dict(type='NotVLSAM')", 'model = dict()', ''):
        (tmp_path / 'other.py').write_text(text)
        with pytest.raises(VlsamError, match=r'other\.py is not one of VL-SAM; take one of configs/vlsam'):
            load(tmp_path / 'other.py')


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('model = dict(', r"SyntaxError: '\(' was never closed .*"),
        ("_base_ = 'nowhere.py'", 'FileNotFoundError: .*nowhere.py.*'),
        ('model = 1 / 0', 'ZeroDivisionError: division by zero'),
    ],
)
def test_a_config_that_cannot_be_read_is_one_sentence(tmp_path, text, reason):
    (tmp_path / 'own.py').write_text(text)
    with pytest.raises(VlsamError, match=rf'own\.py cannot be read \({reason}\); correct it\.$'):
        load(tmp_path / 'own.py')


def test_a_class_derived_from_it_is_one_whatever_its_name():
    @MODELS.register_module(name='OpenEnded', force=True)
    class OpenEnded(MODELS.get('atss_ext.VLSAM')):
        pass

    assert isinstance(build({**config(), 'type': 'atss_ext.OpenEnded'}).vlm, RuleVLM)


def test_a_config_is_named_as_in_a_base(tmp_path):
    (tmp_path / 'own.py').write_text("_base_ = 'atss_ext::vlsam/vlsam_llava1.5-7b_sam-vit-h.py'")
    for name in (tmp_path / 'own.py', 'atss_ext::vlsam/vlsam_llava1.5-7b_sam-vit-h.py'):
        with pytest.raises(ValueError, match="VLSAM knows no setting 'theshold'"):  # the config was read
            load(name, theshold=1)
    for name in ('atss_ext::vlsam/none.py', 'no_such_package::vlsam/none.py'):
        with pytest.raises(VlsamError, match=f'config {name}.* cannot be found'):
            load(name)


def test_the_order_of_keys_does_not_count_and_every_value_does():
    vlm = {**VLM, 'load_options': {'a': 1, 'b': {'c': [1, 2], 'd': None}}}
    turned = {'load_options': {'b': {'d': None, 'c': (1, 2)}, 'a': 1}, **VLM}
    assert fingerprint(vlm, SEGMENTER, OPTIONS) == fingerprint(turned, SEGMENTER, OPTIONS)
    others = [
        (SEGMENTER, vlm, OPTIONS),
        ({**vlm, 'load_options': {'a': 1, 'b': {'c': [2, 1], 'd': None}}}, SEGMENTER, OPTIONS),
        (vlm, {**SEGMENTER, 'penalty': 0.25}, OPTIONS),
        (vlm, SEGMENTER, PipelineOptions.from_mapping({'prompts': {'threshold': 0.25}})),
        (vlm, SEGMENTER, PipelineOptions(seed=1)),
    ]
    assert len({fingerprint(*each) for each in [(vlm, SEGMENTER, OPTIONS), *others]}) == 6


def test_the_device_does_not_count_and_the_version_does(monkeypatch):
    plain = fingerprint(VLM, SEGMENTER, OPTIONS)
    assert fingerprint({**VLM, 'device': 'cuda:1'}, SEGMENTER, OPTIONS) == plain
    monkeypatch.setattr('atss_ext.vlsam.fingerprints.__version__', f'{atss_ext.__version__}.1')
    assert fingerprint(VLM, SEGMENTER, OPTIONS) != plain


def lower(text, start=0):
    """A parser of names."""
    return parse(text.lower()[start:])


def upper(text):
    """Another."""
    return parse(text.upper())


def with_parser(parser) -> str:
    return fingerprint(VLM, SEGMENTER, PipelineOptions.from_mapping({'names': {'parser': parser}}))


def test_a_function_counts_by_its_name():
    given = [None, lower, upper, functools.partial(lower, start=1), functools.partial(lower, start=2)]
    assert len({with_parser(parser) for parser in given}) == 5


def test_it_is_the_same_in_any_process_and_takes_no_mmdet():
    script = """
import functools, sys
from atss_ext.vlsam.fingerprints import fingerprint
from atss_ext.vlsam.names import parse
from atss_ext.vlsam.options import PipelineOptions
parser = functools.partial(parse, 1, key={'b', 'a'})
options = PipelineOptions.from_mapping({'names': {'parser': parser}})
print(fingerprint({'type': 'atss_ext.RuleVLM'}, {'type': 'atss_ext.RuleSegmenter'}, options))
print('mmdet' in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [with_parser(functools.partial(parse, 1, key={'b', 'a'})), 'False']


def test_what_nothing_tells_apart_is_refused():
    with pytest.raises(VlsamError, match=r'^options.names.parser is a .*<lambda>, which nothing tells'):
        with_parser(lambda text: [])
    with pytest.raises(VlsamError, match=r'^vlm.model is a Linear, which nothing tells'):
        fingerprint({**VLM, 'model': torch.nn.Linear(1, 1)}, SEGMENTER, OPTIONS)
    with pytest.raises(VlsamError, match=r'^segmenter.predictor is a RuleVLM, which nothing tells'):
        fingerprint(VLM, {**SEGMENTER, 'predictor': RuleVLM()}, OPTIONS)


@pytest.mark.parametrize('part', ['vlm', 'segmenter'])
def test_a_store_is_refused_with_models_that_are_built(tmp_path, part):
    built = {'vlm': RuleVLM(), 'segmenter': RuleSegmenter()}[part]
    message = f'^{part} is a {type(built).__name__} that is built.* name both models by config'
    with pytest.raises(ValueError, match=message):
        MODELS.build(config(**{part: built}, store=str(tmp_path / 'store')))
    assert not (tmp_path / 'store').exists()
    assert MODELS.build(config(**{part: built})).store is None


def test_other_weights_in_the_same_folder_are_another_model(tmp_path):
    folder = tmp_path / 'model'
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps({}))
    (folder / 'model-00001.safetensors').write_bytes(b'12')
    (folder / 'README.md').write_text('a')
    checkpoint = tmp_path / 'sam.pt'
    checkpoint.write_bytes(b'1')
    segmenter = {**SEGMENTER, 'checkpoint': str(checkpoint)}

    def now() -> str:
        return fingerprint({**VLM, 'model': folder}, segmenter, OPTIONS)

    seen = [now()]
    (folder / 'README.md').write_text('b')
    assert now() == seen[0]
    for path in (folder / 'config.json', folder / 'model-00001.safetensors', checkpoint):
        os.utime(path, ns=(1, 1))  # as large, written at another time
        seen.append(now())
    (folder / 'model-00001.safetensors').write_bytes(b'1')
    os.utime(folder / 'model-00001.safetensors', ns=(1, 1))  # of another size, written at the same time
    seen.append(now())
    (folder / 'model-00002.safetensors').write_bytes(b'2')
    seen.append(now())
    assert len(set(seen)) == 6
