"""Loading by name, without a network: folders that are right, and everything that can be wrong with one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_vlms import FAMILIES, tiny_vlm

from atss_ext.vlsam.protocols import VlsamError
from atss_ext.vlsam.vlm import TransformersVLM

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def save(folder: Path, family: str = 'llava') -> tuple:
    model, processor = tiny_vlm(family)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


@pytest.mark.parametrize('family', FAMILIES)
def test_a_saved_model_is_the_model(family, tmp_path):
    """Weights, processor and chat template come back from a folder; no network is asked for them."""
    settings = {'max_new_tokens': 6, 'temperature': 1.0, 'top_p': 0.9}
    built = TransformersVLM(*save(tmp_path, family), **settings)
    loaded = TransformersVLM(str(tmp_path), local_files_only=True, device='cpu', **settings)
    (expected,), (answer,) = (vlm.answer([IMAGE], ['What?'], [1]) for vlm in (built, loaded))
    assert answer.prompt.text == expected.prompt.text
    assert answer.token_ids == expected.token_ids
    torch.testing.assert_close(loaded.read(answer).log_probs, built.read(expected).log_probs)
    assert loaded.model.config.text_config._attn_implementation == 'sdpa'
    assert not loaded.model.training


def test_dtype_and_options(tmp_path):
    """float32 on a CPU unless said otherwise; options reach transformers; paths need not be strings."""
    model, processor = tiny_vlm('llava')
    model.bfloat16().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert TransformersVLM(tmp_path, device='cpu').model.dtype == torch.float32
    assert TransformersVLM(tmp_path, device='cpu', dtype='bfloat16').model.dtype == torch.bfloat16
    eager = TransformersVLM(tmp_path, device='cpu', load_options={'attn_implementation': 'eager'})
    assert eager.model.config.text_config._attn_implementation == 'eager'


def test_processor_from_elsewhere(tmp_path):
    model, processor = tiny_vlm('llava')
    model.save_pretrained(tmp_path / 'model')
    processor.save_pretrained(tmp_path / 'processor')
    vlm = TransformersVLM(tmp_path / 'model', tmp_path / 'processor', device='cpu', max_new_tokens=2)
    assert vlm.answer([IMAGE], ['?'], [0])[0].token_ids
    with pytest.raises(VlsamError, match=r'the processor .*model cannot be loaded .* with save_pretrained'):
        TransformersVLM(tmp_path / 'model', device='cpu')


@pytest.mark.parametrize('name', ['./nowhere', '/nowhere/at/all', 'a/b/c', '~/nowhere-at-all', r'C:\nowhere'])
def test_paths_that_do_not_exist(name):
    with pytest.raises(VlsamError, match=r'the folder .*nowhere|the folder a/b/c') as caught:
        TransformersVLM(name)
    assert 'does not exist; correct the path' in str(caught.value)


def test_names_that_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(
        VlsamError, match='nobody/nothing is no folder here, and could not be fetched'
    ) as caught:
        TransformersVLM('nobody/nothing', local_files_only=True)
    assert 'correct the name, connect to the network, or give the folder' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_weights_that_are_no_safetensors_are_not_read(tmp_path):
    """A pickle would execute what it holds."""
    model, _ = save(tmp_path)
    (tmp_path / 'model.safetensors').unlink()
    torch.save(model.state_dict(), tmp_path / 'pytorch_model.bin')
    with pytest.raises(VlsamError, match='convert its weights to safetensors'):
        TransformersVLM(str(tmp_path))


def test_a_damaged_file(tmp_path):
    save(tmp_path)
    weights = tmp_path / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(VlsamError, match=r'the model .* cannot be loaded'):
        TransformersVLM(str(tmp_path))


def test_an_empty_folder(tmp_path):
    with pytest.raises(VlsamError, match=r'the configuration .* cannot be loaded'):
        TransformersVLM(str(tmp_path))


def edit_config(folder: Path, **changes) -> None:
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_model_of_another_kind(tmp_path):
    """Refused by its configuration, before weights are looked for, with what to take instead."""
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'bert'}))
    with pytest.raises(
        VlsamError, match=r"model type 'bert' is not supported; take one of llava, .*, idefics3"
    ) as caught:
        TransformersVLM(str(tmp_path))
    assert 'protocols.VisionLanguageModel' in str(caught.value)


def test_llava_around_pixtral(tmp_path):
    """The same class with a tower whose tokens stand otherwise."""
    save(tmp_path)
    edit_config(tmp_path, vision_config={'model_type': 'pixtral'})
    with pytest.raises(VlsamError, match="model type 'llava' with pixtral is not supported"):
        TransformersVLM(str(tmp_path))


def test_a_model_with_code_of_its_author(tmp_path):
    """As CogVLM has it: the code is not executed, and the way out is said."""
    mark = tmp_path / 'executed'
    (tmp_path / 'evil.py').write_text(f'open({str(mark)!r}, "w")')
    config = {'model_type': 'evil', 'auto_map': {'AutoConfig': 'evil.Config', 'AutoModel': 'evil.Model'}}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(VlsamError, match='needs Python code of its author, which is not executed'):
        TransformersVLM(str(tmp_path))
    assert not mark.exists()


@pytest.mark.parametrize('name', ['trust_remote_code', 'code_revision', 'use_safetensors', 'use_kernels'])
@pytest.mark.parametrize('value', [True, False])
def test_options_that_would_execute_code(name, value, tmp_path):
    with pytest.raises(ValueError, match=f'load_options must not hold {name}'):
        TransformersVLM(str(tmp_path), load_options={name: value})


def test_attention_from_the_hub(tmp_path):
    with pytest.raises(ValueError, match="attn_implementation='somebody/attention', which is code"):
        TransformersVLM(str(tmp_path), load_options={'attn_implementation': 'somebody/attention'})


def test_an_option_transformers_does_not_know(tmp_path):
    save(tmp_path)
    with pytest.raises(VlsamError, match=r'cannot be loaded .*devize_map.*; correct load_options'):
        TransformersVLM(str(tmp_path), load_options={'devize_map': 'auto'})


def test_a_package_the_processor_needs(tmp_path, monkeypatch):
    """SmolVLM's processor writes numbers in words, by num2words."""
    from transformers.models.smolvlm import processing_smolvlm

    save(tmp_path, 'smolvlm')
    monkeypatch.setattr(processing_smolvlm, 'num2words', None)
    with pytest.raises(
        VlsamError, match=r'the processor .* cannot be loaded .*num2words.*; install what it asks for'
    ):
        TransformersVLM(str(tmp_path))


def test_transformers_that_is_missing_or_too_old(monkeypatch):
    import transformers

    monkeypatch.setattr(transformers, '__version__', '4.57.6')
    with pytest.raises(
        VlsamError,
        match=r'transformers 4.57.6 is too old .*5.0 or newer; run pip install "atss_ext\[vlsam\]"',
    ):
        TransformersVLM('any/model')
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(
        VlsamError, match=r'needs transformers, which cannot be imported .*"atss_ext\[vlsam\]"'
    ):
        TransformersVLM('any/model')


def test_importing_needs_no_transformers():
    code = (
        "import sys; sys.modules['transformers'] = None; import atss_ext.vlsam.vlm as vlm\n"
        "assert vlm.TransformersVLM and vlm.probabilities and sys.modules['transformers'] is None"
    )
    subprocess.run([sys.executable, '-c', code], check=True)
