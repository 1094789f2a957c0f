"""Segmenters by name, without a network: folders that are right, and what can be wrong with one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny_sams import DECODER, FAMILIES, PROMPTS, sam2_vision, tiny_processor, tiny_sam

from atss_ext.vlsam.protocols import Segmentation, VlsamError
from atss_ext.vlsam.segmenter import TransformersSegmenter

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def save(folder: Path, family: str = 'sam') -> tuple:
    model, processor = tiny_sam(family)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def look(segmenter: TransformersSegmenter) -> Segmentation:
    points = torch.tensor([[[30.0, 40], [100, 20]], [[80, 80], [10, 10]]])
    return segmenter.segment(segmenter.embed(IMAGE), points, torch.tensor([[1, 0], [1, 0]]))


@pytest.mark.parametrize('family', FAMILIES)
def test_a_saved_model_is_the_model(family, tmp_path):
    expected = look(TransformersSegmenter(*save(tmp_path, family)))
    loaded = TransformersSegmenter(str(tmp_path), device='cpu', local_files_only=True)
    found = look(loaded)
    torch.testing.assert_close(found.mask_logits, expected.mask_logits)
    torch.testing.assert_close(found.ious, expected.ious)
    assert torch.equal(found.masks, expected.masks)
    assert not loaded.model.training


def test_a_video_checkpoint_of_sam2(tmp_path):
    """As SAM 2 is published: its image part comes out of the video model."""
    image_model, processor = tiny_sam('sam2')
    config = transformers.Sam2VideoConfig(
        vision_config=sam2_vision(),
        prompt_encoder_config=PROMPTS,
        mask_decoder_config=DECODER,
        image_size=128,
        memory_attention_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=32,
        mask_downsampler_embed_dim=32,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=32,
    )
    video = transformers.Sam2VideoModel(config)
    missing, _ = video.load_state_dict(image_model.state_dict(), strict=False)
    assert not [name for name in missing if name.startswith(('vision_encoder', 'mask_decoder'))]
    video.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / 'config.json').read_text())['model_type'] == 'sam2_video'
    loaded = TransformersSegmenter(tmp_path, device='cpu')
    assert type(loaded.model).__name__ == 'Sam2Model'
    assert torch.equal(look(loaded).masks, look(TransformersSegmenter(image_model, processor)).masks)


def test_dtypes(tmp_path):
    """float32 on a CPU unless said otherwise."""
    model, processor = tiny_sam('sam')
    model.bfloat16().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert TransformersSegmenter(tmp_path, device='cpu').model.dtype == torch.float32
    assert TransformersSegmenter(tmp_path, device='cpu', dtype='bfloat16').model.dtype == torch.bfloat16
    assert TransformersSegmenter(model, processor).model.dtype == torch.bfloat16
    assert TransformersSegmenter(model, processor, dtype=torch.float32).model.dtype == torch.float32


def test_load_options_reach_transformers(tmp_path):
    save(tmp_path)
    segmenter = TransformersSegmenter(tmp_path, load_options={'attn_implementation': 'eager'}, device='cpu')
    assert segmenter.model.config._attn_implementation == 'eager'


def test_a_processor_from_elsewhere(tmp_path):
    model, processor = tiny_sam('sam')
    model.save_pretrained(tmp_path / 'model')
    processor.save_pretrained(tmp_path / 'processor')
    expected = look(TransformersSegmenter(model, processor))
    for given in (processor, processor.image_processor, tmp_path / 'processor'):
        found = look(TransformersSegmenter(tmp_path / 'model', given, device='cpu'))
        assert torch.equal(found.masks, expected.masks)
    with pytest.raises(VlsamError, match=r'the processor .*model cannot be loaded .* with save_pretrained'):
        TransformersSegmenter(tmp_path / 'model', device='cpu')


@pytest.mark.parametrize('name', ['./nowhere', '/nowhere/at/all', 'a/b/c', '~/nowhere-at-all', r'C:\nowhere'])
def test_paths_that_do_not_exist(name):
    with pytest.raises(VlsamError, match=r'the folder .* does not exist; correct the path'):
        TransformersSegmenter(name)


def test_names_that_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(VlsamError, match='nobody/nothing is no folder here, and could not be') as caught:
        TransformersSegmenter('nobody/nothing', local_files_only=True)
    assert 'correct the name, connect to the network, or give the folder' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_weights_that_are_no_safetensors_are_not_read(tmp_path):
    """A pickle would execute what it holds."""
    model, _ = save(tmp_path)
    (tmp_path / 'model.safetensors').unlink()
    torch.save(model.state_dict(), tmp_path / 'pytorch_model.bin')
    with pytest.raises(VlsamError, match='convert its weights to safetensors'):
        TransformersSegmenter(tmp_path)


def test_damaged_weights(tmp_path):
    save(tmp_path)
    weights = tmp_path / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(VlsamError, match=r'the model .* cannot be loaded'):
        TransformersSegmenter(tmp_path)


def test_an_empty_folder(tmp_path):
    with pytest.raises(VlsamError, match=r'the configuration .* cannot be loaded'):
        TransformersSegmenter(tmp_path)


def test_code_in_a_folder_is_not_run(tmp_path):
    """A model that brings classes of its own is refused, whatever it calls itself."""
    (tmp_path / 'config.json').write_text(
        json.dumps({'model_type': 'mine', 'auto_map': {'AutoConfig': 'mine.MyConfig'}})
    )
    (tmp_path / 'mine.py').write_text(f"open({str(tmp_path / 'run')!r}, 'w').close()\nclass MyConfig: pass\n")
    with pytest.raises(VlsamError):
        TransformersSegmenter(tmp_path)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('model_type', ['bert', 'sam3'])
def test_models_of_another_kind(model_type, tmp_path):
    """Refused by the configuration, before weights are looked for, with what to take instead."""
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': model_type}))
    with pytest.raises(VlsamError, match=f'a model of type {model_type}, is none of the') as caught:
        TransformersSegmenter(tmp_path)
    for way in ('SamModel', 'EdgeTamModel', 'protocols.Segmenter', 'PredictorSegmenter'):
        assert way in str(caught.value)


def test_a_built_model_of_another_kind():
    with pytest.raises(VlsamError, match='Linear is none of the segmenters of transformers that take points'):
        TransformersSegmenter(torch.nn.Linear(1, 1), tiny_processor('sam'))


def test_edgetam_without_timm(tmp_path, monkeypatch):
    """Its own backbone is timm's; where that is missing, it is what the message names."""
    monkeypatch.setitem(sys.modules, 'timm', None)

    def missing(*_, **__):
        raise ImportError('TimmWrapperModel requires the timm library but it was not found')

    save(tmp_path, 'edgetam')
    monkeypatch.setattr(transformers.EdgeTamModel, 'from_pretrained', missing)
    with pytest.raises(VlsamError, match='has a backbone of timm, which is missing; run pip install timm'):
        TransformersSegmenter(tmp_path)


BAD_ARGUMENTS = {
    'no processor': ({}, 'needs a SamProcessor that is built'),
    'a name': ({'processor': 'facebook/sam-vit-base'}, "is built, but processor is 'facebook"),
    'options without effect': ({'processor': 1, 'load_options': {'device_map': 'auto'}}, 'have no effect'),
    'remote code': ({'load_options': {'trust_remote_code': True}}, 'must not hold trust_remote_code'),
    'pickles': ({'load_options': {'use_safetensors': False}}, 'must not hold use_safetensors'),
    'kernels': ({'load_options': {'attn_implementation': 'a/b'}}, "must not fetch attn_implementation='a/b'"),
    'integers': ({'processor': 1, 'dtype': 'int8'}, "dtype is 'int8'; it takes 'auto'"),
    'no type at all': ({'processor': 1, 'dtype': 'double precision'}, "dtype is 'double precision'"),
    'no objects': ({'processor': 1, 'objects_per_call': 0}, 'objects_per_call is 0'),
}


@pytest.mark.parametrize('name', BAD_ARGUMENTS)
def test_bad_arguments(name):
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        TransformersSegmenter(tiny_sam('sam')[0], **arguments)


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(VlsamError, match=r'cannot be imported .*; run pip install "atss_ext\[vlsam\]"'):
        TransformersSegmenter('facebook/sam-vit-base')


def test_with_an_old_transformers(monkeypatch):
    # By its name: transformers puts another module object in its own place once something is taken from it.
    monkeypatch.setattr('transformers.__version__', '4.57.1')
    with pytest.raises(VlsamError, match=r'transformers 4\.57\.1 is too old'):
        TransformersSegmenter('facebook/sam-vit-base')


def test_importing_needs_no_library_of_models():
    """A fresh interpreter in which none of them can be imported."""
    absent = ('transformers', 'segment_anything', 'segment_anything_hq', 'mobile_sam', 'mmdet', 'mmengine')
    code = f'import sys; sys.modules.update(dict.fromkeys({absent!r})); import atss_ext.vlsam.segmenter'
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
