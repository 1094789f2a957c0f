"""Every config of VL-SAM says what this table says, and builds."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, init_default_scope
from tiny_sams import tiny_sam
from tiny_vlms import tiny_vlm

from atss_ext.registry import METRICS, MODELS
from atss_ext.vlsam import VlsamError
from atss_ext.vlsam.options import PipelineOptions

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
LLAVA, QWEN, INTERN = 'llava-hf/llava-1.5-7b-hf', 'Qwen/Qwen2.5-VL-7B-Instruct', 'OpenGVLab/InternVL3-8B-hf'
SAM, SAM2 = 'facebook/sam-vit-huge', 'facebook/sam2.1-hiera-large'
FAMILIES = {LLAVA: 'llava', QWEN: 'qwen2_5_vl', INTERN: 'internvl', SAM: 'sam', SAM2: 'sam2'}
PAIRS = {
    'llava1.5-7b_sam-vit-h': (LLAVA, SAM),
    'qwen2.5-vl-7b_sam2.1-l': (QWEN, SAM2),
    'internvl3-8b_sam2.1-l': (INTERN, SAM2),
}
DATA = {
    'vlsam': ('', 'data/images/', '', ''),
    'lvis': (
        '_lvis-minival',
        'data/coco/',
        'annotations/lvis_v1_minival_inserted_image_name.json',
        'val2017/',
    ),
    'coda': ('_coda', 'data/coda/', 'corner_case.json', 'images/'),
}
MINIVAL = 'data/coco/annotations/lvis_v1_minival_inserted_image_name.json'
CLIP = {'encoder': {'type': 'atss_ext.ClipEncoder'}}
EVALUATORS = {
    'vlsam': {'type': 'atss_ext.OpenEndedResults'},
    'lvis': {
        'type': 'atss_ext.NamedMetric',
        'metric': {
            'type': 'atss_ext.LvisMetric',
            'ann_file': MINIVAL,
            'metric': ['bbox', 'segm'],
            'protocol': 'fixed',
        },
        'mapper': CLIP,
    },
    'coda': {
        'type': 'atss_ext.NamedMetric',
        'metric': {'type': 'atss_ext.CodaMetric', 'ann_file': 'data/coda/corner_case.json'},
        'mapper': CLIP,
        'unmapped': 'keep',
    },
}


def expected_files() -> set[str]:
    files = {f'{place}/vlsam_{pair}{DATA[place][0]}.py' for place in DATA for pair in PAIRS}
    return files | {'vlsam/vlsam_llava1.5-7b_mobilesam.py', 'vlsam/vlsam_world.py'}


def test_the_table_names_every_config():
    found = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob('[!_]*/vlsam_*.py')}
    assert found == expected_files()


@pytest.mark.parametrize('place', DATA)
@pytest.mark.parametrize('pair', PAIRS)
def test_a_config_resolves_to_the_table_and_builds(place, pair, tmp_path):
    suffix, root, ann_file, images = DATA[place]
    cfg = Config.fromfile(CONFIGS / place / f'vlsam_{pair}{suffix}.py')
    assert (cfg.model.vlm.model, cfg.model.segmenter.model) == PAIRS[pair]
    assert (cfg.model.vlm.temperature, cfg.model.vlm.top_p) == (0.8, 0.1)  # section 4.1
    dataset = cfg.test_dataloader.dataset
    assert dataset.type == 'atss_ext.ImageList'
    assert (dataset.data_root, dataset.get('ann_file', ''), dataset.data_prefix.img) == (
        root,
        ann_file,
        images,
    )
    assert cfg.test_evaluator.to_dict() == EVALUATORS[place]
    assert cfg.model_wrapper_cfg.type == 'atss_ext.InferenceWrapper'

    for build, part in ((tiny_vlm, cfg.model.vlm), (tiny_sam, cfg.model.segmenter)):
        folder = tmp_path / FAMILIES[part.model]
        for piece in build(FAMILIES[part.model]):
            piece.save_pretrained(folder)
        part.model = str(folder)
    init_default_scope('mmdet')
    METRICS.build(cfg.test_evaluator)
    pipeline = MODELS.build(cfg.model).pipeline
    assert pipeline.options == PipelineOptions()
    assert type(pipeline.segmenter.model).__name__ == {SAM: 'SamModel', SAM2: 'Sam2Model'}[PAIRS[pair][1]]


@pytest.mark.parametrize('name', sorted(expected_files()))
@pytest.mark.parametrize('processes', [2, 8])
def test_every_image_is_one_process_s(name, processes, monkeypatch):
    """Also of five images, which divide by neither number of processes."""
    cfg = Config.fromfile(CONFIGS / name)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, processes))
        sampler = DATA_SAMPLERS.build(cfg.test_dataloader.sampler, default_args={'dataset': range(5)})
        shares.append(list(sampler))
    assert shares[0] == list(range(0, 5, processes))
    assert sorted(image for share in shares for image in share) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('name', sorted(expected_files()))
def test_no_process_gives_up_on_one_whose_images_take_longer(name):
    """They meet at the end only; by default torch waits for ten minutes, or thirty."""
    dist_cfg = Config.fromfile(CONFIGS / name).env_cfg.dist_cfg
    assert dist_cfg == {'backend': 'nccl', 'timeout': 365 * 24 * 3600}


def test_the_small_world_has_the_models_of_the_package():
    cfg = Config.fromfile(CONFIGS / 'vlsam/vlsam_world.py')
    assert cfg.model.vlm.to_dict() == {
        'type': 'atss_ext.TransformersVLM',
        'model': 'atss_ext::vlsam/world/weights/vlm',
        'temperature': 0.8,
        'top_p': 0.1,
        'max_new_tokens': 64,
        'batch_size': 10,
    }
    assert cfg.model.segmenter.to_dict() == {
        'type': 'atss_ext.TransformersSegmenter',
        'model': 'atss_ext::vlsam/world/weights/sam',
    }
    assert cfg.test_dataloader.dataset.type == 'atss_ext.ImageList'
    init_default_scope('mmdet')
    pipeline = MODELS.build(cfg.model).pipeline
    kinds = [type(part.model).__name__ for part in (pipeline.vlm, pipeline.segmenter)]
    assert kinds == ['LlavaForConditionalGeneration', 'SamModel']
    assert (pipeline.vlm.max_new_tokens, pipeline.vlm.batch_size) == (64, 10)


def test_mobile_sam_names_the_package_it_needs(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'vlsam/vlsam_llava1.5-7b_mobilesam.py')
    assert cfg.model.segmenter.to_dict() == {
        'type': 'atss_ext.PredictorSegmenter',
        'package': 'mobile_sam',
        'model_type': 'vit_t',
        'checkpoint': 'checkpoints/mobile_sam.pt',
    }
    for piece in tiny_vlm('llava'):
        piece.save_pretrained(tmp_path)
    cfg.model.vlm.model = str(tmp_path)
    init_default_scope('mmdet')
    with pytest.raises(VlsamError, match='mobile_sam'):
        MODELS.build(cfg.model)
