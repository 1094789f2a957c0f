"""Names of models inside of the package, ``atss_ext::path``: what they load, what is refused and resumed."""

import os
import shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from tiny_sams import tiny_sam
from tiny_vlms import tiny_vlm

from atss_ext.cli.open_ended.job import Job
from atss_ext.vlsam import VlsamError, hub, load
from atss_ext.vlsam.fingerprints import fingerprint
from atss_ext.vlsam.options import PipelineOptions
from atss_ext.vlsam.segmenter import TransformersSegmenter
from atss_ext.vlsam.vlm import TransformersVLM
from atss_ext.vlsam.world import SAM, VLM, shipped_folder

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
POINTS, LABELS = torch.tensor([[[30.0, 40], [100, 20]]]), torch.tensor([[1, 0]])


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> Path:
    """A package with tiny random models in the places of the trained ones."""
    package = tmp_path_factory.mktemp('site') / 'atss_ext'
    for name, pieces in (('vlm', tiny_vlm('llava')), ('sam', tiny_sam('sam'))):
        for piece in pieces:
            piece.save_pretrained(package / 'vlsam/world/weights' / name)
    (package.parent / 'other').mkdir()
    return package


@pytest.fixture
def package(saved, monkeypatch) -> Path:
    monkeypatch.setattr(hub, '_PACKAGE', saved)
    return saved


def test_the_names_are_folders_of_the_package(package):
    assert VLM == 'atss_ext::vlsam/world/weights/vlm'
    assert SAM == 'atss_ext::vlsam/world/weights/sam'
    assert shipped_folder(VLM) == package / 'vlsam/world/weights/vlm'
    assert shipped_folder('atss_ext::vlsam') == package / 'vlsam'
    with pytest.raises(ValueError, match="name must be like atss_ext::vlsam/world/weights/vlm, but is 'vlm'"):
        shipped_folder('vlm')


@pytest.mark.parametrize('name', ['llava-hf/llava-1.5-7b-hf', './folder', r'C:\models', '~/models'])
def test_other_names_stay_as_they_are(package, name):
    assert hub.local_name(name) == name


def test_a_folder_that_is_there_is_no_name_of_a_package(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('run::3').mkdir()
    assert hub.local_name('run::3') == 'run::3'


@pytest.mark.parametrize('name', [VLM, Path(VLM)])
def test_a_vlm_of_the_package(package, name):
    settings = {'max_new_tokens': 6, 'temperature': 0, 'device': 'cpu'}
    named = TransformersVLM(name, **settings)
    processor_named = TransformersVLM(package / 'vlsam/world/weights/vlm', VLM, **settings)
    expected = TransformersVLM(str(package / 'vlsam/world/weights/vlm'), **settings)
    answers = [v.answer([IMAGE], ['What?'], [1])[0] for v in (named, processor_named, expected)]
    assert answers[0].token_ids == answers[1].token_ids == answers[2].token_ids
    torch.testing.assert_close(named.read(answers[0]).log_probs, expected.read(answers[2]).log_probs)


def test_a_segmenter_of_the_package(package):
    found, expected = (
        segmenter.segment(segmenter.embed(IMAGE), POINTS, LABELS)
        for segmenter in (
            TransformersSegmenter(SAM, device='cpu'),
            TransformersSegmenter(package / 'vlsam/world/weights/sam', SAM, device='cpu'),
        )
    )
    assert found.masks.any()
    assert torch.equal(found.masks, expected.masks)
    torch.testing.assert_close(found.mask_logits, expected.mask_logits)


def test_both_through_load_and_the_command(package, tmp_path):
    loaded = load(VLM, SAM, device='cpu')
    job = Job(source=tmp_path, out=tmp_path, config=None, vlm=VLM, segmenter=SAM, device='cpu')
    for pipeline in (loaded, job.pipeline):
        for part, folder in ((pipeline.vlm, shipped_folder(VLM)), (pipeline.segmenter, shipped_folder(SAM))):
            assert part.model.name_or_path == str(folder)


NAMES = 'atss_ext::vlsam/world/weights/vlm and atss_ext::vlsam/world/weights/sam'


@pytest.mark.parametrize('loader', [TransformersVLM, TransformersSegmenter])
@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('mmdet::vlm', f'inside of the package mmdet, but only atss_ext comes with models: {NAMES}.'),
        ('::vlm', f'inside of the package , but only atss_ext comes with models: {NAMES}.'),
        ('atss_ext::vlsam/none', f'the models that come with atss_ext are {NAMES}.'),
        ('atss_ext::../other', f'the models that come with atss_ext are {NAMES}.'),
        ('atss_ext::/tmp', f'the models that come with atss_ext are {NAMES}.'),
        ('atss_ext::', f'the models that come with atss_ext are {NAMES}.'),
    ],
)
def test_an_unknown_name_is_one_sentence(package, loader, name, sentence):
    with pytest.raises(VlsamError) as caught:
        loader(name)
    assert str(caught.value).startswith(f'{name} ')
    assert str(caught.value).endswith(sentence)


def test_a_package_without_its_models_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, '_PACKAGE', tmp_path / 'atss_ext')
    with pytest.raises(
        VlsamError, match=rf'^{SAM} is missing in this installation .*; install atss_ext again'
    ):
        TransformersSegmenter(SAM)


def test_a_damaged_model_of_the_package_is_no_matter_of_the_network(package, tmp_path, monkeypatch):
    damaged = tmp_path / 'atss_ext'
    shutil.copytree(package, damaged)
    (damaged / 'vlsam/world/weights/sam/model.safetensors').write_bytes(b'')
    monkeypatch.setattr(hub, '_PACKAGE', damaged)
    with pytest.raises(VlsamError, match=f'the model {SAM} cannot be loaded'):
        TransformersSegmenter(SAM)


def now(vlm: str = VLM, segmenter: str = SAM) -> str:
    return fingerprint({'model': vlm}, {'model': segmenter}, PipelineOptions())


def test_results_of_other_weights_are_told_apart(package, tmp_path, monkeypatch):
    """Also where the package lies does not count: the same files elsewhere are the same models."""
    before = now()
    copy = tmp_path / 'atss_ext'
    shutil.copytree(package, copy)  # with the times of the files
    monkeypatch.setattr(hub, '_PACKAGE', copy)
    assert now() == before
    os.utime(copy / 'vlsam/world/weights/sam/model.safetensors', ns=(1, 1))
    changed = now()
    os.utime(copy / 'vlsam/world/weights/vlm/config.json', ns=(1, 1))
    assert len({before, changed, now(), now(vlm='atss_ext::vlsam'), now(SAM, VLM)}) == 5


def test_an_unknown_name_is_refused_before_anything_is_written(package, tmp_path):
    job = Job(source=tmp_path, out=tmp_path, config=None, vlm='atss_ext::none', segmenter=SAM)
    with pytest.raises(VlsamError, match=r'^atss_ext::none does not exist inside of'):
        _ = job.fingerprint
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_file_may_have_colons(package, tmp_path):
    path = tmp_path / 'sam::1.pt'
    path.write_bytes(b'1')
    small = fingerprint(None, {'checkpoint': str(path)}, PipelineOptions())
    path.write_bytes(b'12')
    assert fingerprint(None, {'checkpoint': str(path)}, PipelineOptions()) != small


class Hub(BaseHTTPRequestHandler):
    """Answers whatever it is asked, with an error."""

    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def log_message(self, *args):
        pass


def asked(name):
    """The options that a loader is called with."""
    given = []
    hub.fetch(lambda *args, **options: given.append(options), name, 'model', {'revision': 'main'})
    return given[0]


def test_a_hub_that_does_not_answer_is_not_asked_file_by_file(monkeypatch, tmp_path):
    """What is in its cache is still found; a folder needs no hub, and one that answers is asked."""
    from huggingface_hub import constants

    plain = {'trust_remote_code': False, 'revision': 'main'}
    with HTTPServer(('127.0.0.1', 0), Hub) as server:
        monkeypatch.setattr(constants, 'ENDPOINT', f'http://127.0.0.1:{server.server_port}')
        Thread(target=server.serve_forever, daemon=True).start()
        assert asked('nobody/nothing') == plain
        server.shutdown()
    assert asked('nobody/nothing') == {**plain, 'local_files_only': True}
    assert asked(str(tmp_path)) == plain
