"""The whole of VL-SAM on scenes whose one right result is known (stand-ins that follow rules, no weights)."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rule_segmenter import RuleSegmenter
from rule_vlm import RuleVLM, draw

from atss_ext.vlsam import Pipeline, PipelineOptions, VlsamError, ensemble, load, pipeline
from atss_ext.vlsam.ensemble import DEFAULT_QUESTIONS, MergeOptions
from atss_ext.vlsam.names import NameOptions
from atss_ext.vlsam.options import RefineOptions
from atss_ext.vlsam.protocols import Answer, Embedding, Segmentation
from atss_ext.vlsam.scores import ScoreOptions

SCENE = {
    'red square': [(8, 8, 40, 40)],
    'green square': [(100, 12, 112, 24)],
    'blue square': [(96, 80, 144, 112), (20, 90, 44, 114)],
}
SIZE = (120, 160)
WHOLE = PipelineOptions(corners=False, questions='single')


def run(options: PipelineOptions, image=None, vlm=None, segmenter=None):
    image = draw(SIZE, SCENE) if image is None else image
    return Pipeline(vlm or RuleVLM(), segmenter or RuleSegmenter(), options)(image)


def found(detections) -> set[tuple]:
    return {(name, *box) for name, box in zip(detections.names, detections.boxes.tolist(), strict=True)}


def truth(scene=SCENE) -> set[tuple]:
    return {(name, *map(float, box)) for name, boxes in scene.items() for box in boxes}


@pytest.mark.parametrize('flow', ['regularised', 'plain', 'none'])
def test_a_planted_map_ends_in_its_mask(flow):
    detections = run(PipelineOptions.from_mapping({'corners': False, 'flow': {'flow': flow}}))
    assert found(detections) == truth()
    for index, box in enumerate(detections.boxes.astype(int).tolist()):
        x1, y1, x2, y2 = box
        expected = np.zeros(SIZE, bool)
        expected[y1:y2, x1:x2] = True
        assert np.array_equal(detections.mask(index), expected)


def test_the_name_that_a_cut_answer_breaks_off_in_is_no_object():
    class Cut(RuleVLM):
        def _answer(self, image):
            return super()._answer(image)._replace(finished=False)

    last = 'blue square', *map(float, SCENE['blue square'][0])  # the objects are named from left to right
    assert found(run(WHOLE, vlm=Cut())) == truth() - {last}


def test_corner_views_are_put_back_to_their_places():
    detections = run(PipelineOptions(questions='single'))
    assert truth() <= found(detections)
    # The second blue square reaches over no border of a corner, the first lies in the lower right one.
    assert all(detections.mask(i)[int(b[1]), int(b[0])] for i, b in enumerate(detections.boxes))


def test_parts_that_a_corner_view_cuts_off_can_be_dropped():
    """The red square lies across the middle of the image: each corner sees a quarter of it."""
    scene = {'red square': [(60, 40, 100, 80)], 'blue square': [(0, 100, 30, 120)]}
    kept = run(PipelineOptions(questions='single'), draw(SIZE, scene))
    assert len(found(kept)) == 6
    assert found(run(PipelineOptions(questions='single', cut='drop'), draw(SIZE, scene))) == truth(scene)


def test_objects_beside_each_other_in_different_corners_are_found_once():
    scene = {'red square': [(4, 4, 30, 30)], 'green square': [(120, 90, 150, 110)]}
    assert sorted(run(PipelineOptions(), draw(SIZE, scene)).names) == ['green square', 'red square']


def test_scores_are_the_product_of_their_parts_and_never_constant():
    detections = run(WHOLE)
    product = detections.parts['iou'] * detections.parts['contrast'] * detections.parts['name']
    assert detections.scores == pytest.approx(product)
    assert detections.parts['name'] == pytest.approx(np.full(4, np.exp(-0.25)))
    assert len(set(detections.scores.tolist())) == 4
    assert (np.diff(detections.scores) <= 0).all()
    alone = run(
        PipelineOptions(corners=False, questions='single', scores=ScoreOptions(iou=False, name=False))
    )
    assert alone.scores == pytest.approx(alone.parts['contrast'])
    assert set(alone.parts) == {'contrast'}


def test_order_of_views_questions_and_objects_changes_nothing(monkeypatch):
    questions = ['What is there?', 'List all.', 'Name them.']
    before = run(PipelineOptions(questions=questions))

    class Reversed(RuleVLM):
        def _answer(self, image):
            regions = super()._answer(image).prompt[::-1]
            text = ', '.join(f'a {name}' for name, _ in regions)
            spans = [m.span() for m in re.finditer(r' ?\w+|,', text)]
            return Answer(text, spans, list(range(len(spans))), regions)

    monkeypatch.setattr(pipeline, 'views', lambda *args, **kwargs: ensemble.views(*args, **kwargs)[::-1])
    after = run(PipelineOptions(questions=questions[::-1]), vlm=Reversed())
    assert after.names == before.names
    assert np.array_equal(after.boxes, before.boxes)
    assert after.scores == pytest.approx(before.scores, rel=1e-5)
    assert after.run_lengths == before.run_lengths


def test_an_image_is_embedded_once_a_view_and_objects_of_all_questions_share_a_call():
    segmenter = RuleSegmenter()
    run(PipelineOptions(questions=['a', 'b']), segmenter=segmenter)
    assert segmenter.embedded == 5
    assert [len(call['points']) for call in segmenter.calls[:3]] == [8, 8, 8]  # the whole image, three stages


def test_refinement_options_reach_the_segmenter():
    segmenter = RuleSegmenter()
    options = {'corners': False, 'questions': 'single', 'refine': {'feedback': 2, 'resample': 0}}
    run(PipelineOptions.from_mapping(options), segmenter=segmenter)
    assert [call['mask_logits'] is not None for call in segmenter.calls] == [False, True, True]


def test_questions_of_every_kind():
    for questions, asked in (
        ('single', list(DEFAULT_QUESTIONS[:1])),
        ('default', list(DEFAULT_QUESTIONS)),
        (['What?', 'Which?'], ['What?', 'Which?']),
    ):
        vlm = RuleVLM()
        run(PipelineOptions(questions=questions, corners=False), vlm=vlm)
        assert vlm.questions == asked

    class Author(RuleVLM):
        def answer(self, images, questions, seeds):
            if questions[0].startswith('Write 10'):
                return [Answer('1. What is here?\n2. List every thing.', [(0, 1)], [0], [])]
            return super().answer(images, questions, seeds)

    vlm = Author()
    run(PipelineOptions(questions='vlm', corners=False), vlm=vlm)
    assert vlm.questions[:2] == ['What is here?', 'List every thing.']
    assert vlm.questions[2:] == list(DEFAULT_QUESTIONS[:8])


def test_a_model_that_names_nothing_and_one_that_looks_nowhere_find_nothing():
    segmenter = RuleSegmenter()
    detections = run(PipelineOptions(), draw(SIZE, {}), segmenter=segmenter)
    assert len(detections) == 0
    assert segmenter.embedded == 0  # nothing was named, so nothing had to be looked at
    assert len(detections.answers) == 50
    assert detections.masks.shape == (0, *SIZE)

    class Blind(RuleVLM):
        def _coverages(self, answer):
            return [torch.ones(self.cells**2, dtype=torch.float64) for _ in answer.prompt]

    # The regularisation would make a slope of it.
    even = PipelineOptions.from_mapping({'corners': False, 'flow': {'flow': 'plain'}})
    assert len(run(even, vlm=Blind())) == 0


def test_names_of_tokens_outside_the_answer_are_refused():
    class Short(RuleVLM):
        def answer(self, images, questions, seeds):
            self.whole = super().answer(images, questions, seeds)[0]
            return [self.whole._replace(spans=self.whole.spans[:2])]

        def read(self, answer):
            reading = super().read(self.whole)
            return reading._replace(log_probs=reading.log_probs[:2])

    with pytest.raises(VlsamError, match='blue square'):
        run(WHOLE, vlm=Short())


def test_a_reduced_image_gives_results_in_pixels_of_the_original():
    scene = {name: [tuple(4 * x for x in box) for box in boxes] for name, boxes in SCENE.items()}
    image = draw((480, 640), scene)
    options = PipelineOptions(corners=False, questions='single', max_side=160)
    detections = run(options, image)
    assert detections.size == (480, 640)
    assert found(detections) == truth(scene)


def test_kept_maps_lie_where_the_objects_do():
    detections = run(PipelineOptions(questions='single', keep_maps=True))
    for values, box in zip(detections.maps, detections.boxes, strict=True):
        y, x = np.unravel_index(values.argmax(), values.shape)
        x, y = (x + 0.5) / values.shape[1] * SIZE[1], (y + 0.5) / values.shape[0] * SIZE[0]
        assert box[0] - 2 <= x <= box[2] + 2
        assert box[1] - 2 <= y <= box[3] + 2


def test_threshold_of_the_score_and_most_detections():
    every = run(WHOLE)
    limit = float(every.scores[1])
    assert run(PipelineOptions(corners=False, questions='single', score_thr=limit)).names == every.names[:2]
    most = PipelineOptions(corners=False, questions='single', merge=MergeOptions(max_detections=3))
    assert run(most).names == every.names[:3]


MEMORY = """
import resource, sys
sys.path.insert(0, {folder!r})
from test_pipeline import many_objects
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
many_objects(64)
before = peak()
print(many_objects(512), peak() - before)
"""
SIDE = 1024


class PointVLM(RuleVLM):
    """Names ``count`` things, each in a cell of its own."""

    def __init__(self, count: int) -> None:
        super().__init__(cells=32)
        self.count = count

    def _answer(self, image):
        text = ', '.join(['a red square'] * self.count)
        spans = [m.span() for m in re.finditer(r' ?\w+|,', text)]
        return Answer(text, spans, list(range(len(spans))), list(range(self.count)))

    def _coverages(self, answer):
        return list(torch.eye(self.cells**2, dtype=torch.float64)[list(answer.prompt)])


class DotSegmenter:
    """The mask of a point is the 16 pixels around it."""

    def embed(self, image):
        return Embedding(image.shape[:2], None)

    def segment(self, embedding, points, labels, mask_logits=None, boxes=None, multimask=True):
        masks = torch.zeros(len(points), *embedding.size, dtype=torch.bool)
        for mask, (x, y) in zip(masks, points[:, 0].long().tolist(), strict=True):
            mask[y - 8 : y + 8, x - 8 : x + 8] = True
        logits = torch.zeros(len(points), 32, 32)
        return Segmentation(masks, torch.ones(len(points)), logits)


def many_objects(count: int) -> int:
    options = PipelineOptions(
        corners=False,
        questions='single',
        names=NameOptions(max_names=10_000, max_mentions=10_000),
        refine=RefineOptions(feedback=0, resample=0),
    )
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    return len(Pipeline(PointVLM(count), DotSegmenter(), options)(image))


def test_memory_does_not_grow_with_the_number_of_objects():
    """512 masks of a megapixel would be 512 MB; 16 at a time are allowed, and were there before."""
    script = MEMORY.format(folder=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True)
    objects, kilobytes = map(int, done.stdout.split())
    assert objects == 512
    assert kilobytes < 150 * 1024


def test_images_of_every_kind_give_the_same(tmp_path):
    """A file that EXIF turns, one with alpha, a PIL image: as the plain array; too small a one is refused."""
    image = draw(SIZE, SCENE)
    vlsam = Pipeline(RuleVLM(), RuleSegmenter(), WHOLE)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(image[::-1, ::-1]).save(tmp_path / 'turned.png', exif=exif)
    alpha = np.dstack([image, np.full(SIZE, 255, np.uint8)])
    for source in (tmp_path / 'turned.png', str(tmp_path / 'turned.png'), Image.fromarray(alpha), alpha):
        assert found(vlsam(source)) == truth()
    assert len(vlsam(np.full(SIZE, 200, np.uint8))) == 0  # grey: a stand-in for colours names nothing
    with pytest.raises(VlsamError, match='1 x 1'):
        vlsam(np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(VlsamError, match=r'missing\.jpg does not exist'):
        vlsam(tmp_path / 'missing.jpg')


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'questions': 'many'}, "'default', 'vlm', 'single'"),
        ({'questions': []}, 'questions is empty'),
        ({'rows': 'middle'}, "'middle'"),
        ({'cut': 'off'}, "'off'"),
        ({'score_thr': 2}, 'score_thr must be from 0 to 1, but is 2'),
        ({'threshold': 0.5}, "no setting 'threshold'"),
        ({'prompts': {'treshold': 0.5}}, "prompts knows no setting 'treshold'"),
        ({'prompts': {'threshold': 0.0}}, 'threshold'),
        ({'refine': {'keep': 'best'}}, "'best'"),
        ({'refine': {'feedback': -1}}, 'feedback must be at least 0, but is -1'),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        PipelineOptions.from_mapping(settings)


def test_models_without_the_methods_are_refused():
    with pytest.raises(TypeError, match='vlm must have the methods answer, read'):
        Pipeline(RuleSegmenter(), RuleSegmenter())
    with pytest.raises(TypeError, match='segmenter must have the methods embed, segment'):
        Pipeline(RuleVLM(), RuleVLM())


def test_three_lines_of_python(tmp_path):
    vlsam = load(RuleVLM(), RuleSegmenter(), corners=False)
    detections = vlsam(draw(SIZE, SCENE))
    assert found(detections) == truth()
    assert detections.masks.sum(axis=(1, 2)).tolist() == [
        int((b[2] - b[0]) * (b[3] - b[1])) for b in detections.boxes
    ]
    with pytest.raises(VlsamError, match='needs a segmenter'):
        load('llava-hf/llava-1.5-7b-hf')
    with pytest.raises(VlsamError, match=r'config .*missing\.py does not exist'):
        load(tmp_path / 'missing.py')
    other = tmp_path / 'atss.py'
    other.write_text("model = dict(type='ATSS')")
    with pytest.raises(VlsamError, match='not one of VL-SAM'):
        load(other)
    with pytest.raises(VlsamError, match='names its segmenter itself'):
        load(other, 'facebook/sam-vit-huge')
