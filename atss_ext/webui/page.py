"""The page: three tabs, built with gradio. What they do stands in :mod:`atss_ext.webui.desk`."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Read by gradio on import.
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'

import gradio as gr

from atss_ext.webui.answers import attempt, said
from atss_ext.webui.desk import Desk
from atss_ext.webui.discovering import EFFORTS, QUICK

TITLE = 'atss_ext'
NO_DETECTOR = (
    '<div class="answer hint">There is no trained detector yet: <code>make demo</code> trains one in minutes '
    'on a CPU, and this page offers it when it is started again. Or start the page with yours: '
    '<code>--config CONFIG --checkpoint FILE</code>.</div>'
)
LEGEND = (
    'Circle: a positive of the object of its colour. Dot: a prior. Cross: ignored. Dashed box: no positive '
    'at all. A picture enlarges when it is clicked.'
)
CSS = """
.answer { padding: .6rem .9rem; border-radius: 8px; background: #eef6ff; color: #0b3d6b; font-size: 1rem; }
.answers .html-container { padding: 0 !important; }
.answer.hint { background: #fff8e5; color: #6b4a00; }
.answer code { white-space: nowrap; font-weight: 600; }
.dark .answer.hint { background: #43340a; color: #ffe9b0; }
.answer.refused { background: #fff1f0; color: #8a1c12; border: 1px solid #f3b5ae; }
.dark .answer { background: #12304d; color: #d6e9ff; }
.dark .answer.refused { background: #4a1713; color: #ffdad5; border-color: #8a3a33; }
.about { color: var(--body-text-color-subdued); }
.upload img { width: 100%; height: 100%; object-fit: contain; }
.result img { width: 100% !important; height: auto !important; max-height: 34rem; object-fit: contain; }
.pictures .grid-wrap {
  min-height: 0 !important; max-height: none !important; height: auto !important; padding-top: 2rem;
}
.pictures .thumbnail-lg { aspect-ratio: auto !important; height: auto !important; }
.pictures .caption-label {
  font-size: .7rem !important; padding: 1px 5px !important; max-width: 96% !important;
}
@media (max-width: 700px) {
  .pictures .grid-container { grid-template-columns: repeat(2, 1fr) !important; }
}
.table-wrap, .table-wrap * { font-family: var(--font) !important; font-variant-numeric: tabular-nums; }
footer { display: none !important; }
"""
# One model at a time: two would share the cores, or the memory of the GPU.
_ONE_AT_A_TIME: dict[str, Any] = {
    'concurrency_id': 'models',
    'concurrency_limit': 1,
    'api_visibility': 'private',
}
_AT_ONCE: dict[str, Any] = {'queue': False, 'show_progress': 'hidden', 'api_visibility': 'private'}


def build_page(desk: Desk) -> gr.Blocks:
    """The page of a desk."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        gr.Markdown(
            '## atss_ext\nSee what a trained detector finds, what VL-SAM discovers without training, and '
            'which priors learn which object.'
        )
        with gr.Tabs():
            with gr.Tab('Detect', id='detect'):
                _detect_tab(desk)
            with gr.Tab('Discover', id='discover'):
                _discover_tab(desk)
            with gr.Tab('Assignment', id='assignment'):
                _assignment_tab(desk)
    return page


def looks() -> dict[str, Any]:
    """Theme and style sheet: fonts of the system, so that nothing is fetched."""
    theme = gr.themes.Default(
        primary_hue='blue',
        font=['ui-sans-serif', 'system-ui', 'sans-serif'],
        font_mono=['ui-monospace', 'monospace'],
    )
    return {'theme': theme, 'css': CSS}


def _detect_tab(desk: Desk) -> None:
    ready = bool(desk.offer.detectors and desk.offer.checkpoints)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            upload = _upload(desk)
            example = gr.Button('Draw an example', size='sm')
            config = _choice('Config', desk.offer.detectors, 'detect-config')
            checkpoint = _choice('Checkpoint', desk.offer.checkpoints, 'detect-checkpoint')
            threshold = _threshold(0.3)
            run = gr.Button('Detect', variant='primary', interactive=ready, elem_id='detect-run')
        with gr.Column(scale=3, min_width=400):
            start = said('Send an image and press Detect.') if ready else NO_DETECTOR
            answer = _answer(start)
            picture = _picture('Detections', 'detect-picture')
            table = _table(['name', 'score', 'x1', 'y1', 'x2', 'y2'], 'detect-table')
            file = _download('Download COCO results (json)', 'detect-file')

    def blanks() -> tuple[Any, ...]:
        return None, None, _no_file()

    def act(*values: Any) -> tuple[Any, ...]:
        def contents() -> tuple[Any, ...]:
            sentence, image, rows, path = desk.detect(*values)
            return sentence, image, rows, gr.update(value=path, interactive=True)

        return attempt(contents, blanks())

    inputs, outputs = [upload, config, checkpoint, threshold], [answer, picture, table, file]
    running = run.click(act, inputs, outputs, show_progress_on=picture, **_ONE_AT_A_TIME)
    _empty_on_change(upload, running, outputs, lambda: (start, *blanks()))
    _example(example, lambda number: desk.example(number)[:1], [upload])


def _discover_tab(desk: Desk) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            upload = _upload(desk)
            example = gr.Button('Draw an example of the small world', size='sm')
            config = _choice('Config', desk.offer.discoverers, 'discover-config')
            effort = gr.Radio(
                list(EFFORTS),
                value=QUICK,
                label='Effort',
                info='Quick: one question, whole image. Standard: its corners too. Thorough: ten questions.',
            )
            question = gr.Textbox(
                label='Question', placeholder='leave empty for the usual one', max_lines=2, max_length=300
            )
            threshold = _threshold(0.3)
            run = gr.Button('Discover', variant='primary', elem_id='discover-run')
            gr.Markdown(
                'The shipped small models (vlsam_world) know coloured circles, squares and triangles and '
                'nothing else. For photographs start the page with `--vlsam` and a config of a large model.',
                elem_classes='about',
            )
        with gr.Column(scale=3, min_width=400):
            start = said('Send an image, or draw an example, and press Discover.')
            answer = _answer(start)
            picture = _picture('Objects with masks', 'discover-picture')
            gallery = _gallery('Attention and masks, by name', 4, 'discover-gallery')
            table = _table(['name', 'score', 'area %', 'x1', 'y1', 'x2', 'y2'], 'discover-table')
            with gr.Accordion('What the model was asked, and its answers', open=False):
                answers = gr.Dataframe(
                    headers=['view', 'question', 'answer'], interactive=False, wrap=True, show_label=False
                )
            file = _download('Download COCO json with masks', 'discover-file')

    def blanks() -> tuple[Any, ...]:
        return None, None, None, None, _no_file()

    def act(*values: Any) -> tuple[Any, ...]:
        def contents() -> tuple[Any, ...]:
            sentence, image, pictures, rows, asked, path = desk.discover(*values)
            return sentence, image, pictures, rows, asked, gr.update(value=path, interactive=True)

        return attempt(contents, blanks())

    inputs = [upload, config, effort, question, threshold]
    outputs = [answer, picture, gallery, table, answers, file]
    running = run.click(act, inputs, outputs, show_progress_on=picture, **_ONE_AT_A_TIME)
    _empty_on_change(upload, running, outputs, lambda: (start, *blanks()))
    _example(example, lambda number: (desk.small_example(number),), [upload])


def _assignment_tab(desk: Desk) -> None:
    names, every_level = list(desk.offer.assigners), 'Positives of every level'
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            upload = _upload(desk)
            example = gr.Button('Draw an example with boxes', size='sm')
            boxes = gr.Textbox(
                label='Boxes: x1 y1 x2 y2 name', info='one a line, in pixels', lines=5, max_lines=12,
                max_length=20_000, elem_id='assign-boxes',
            )  # fmt: skip
            with gr.Accordion('or a COCO json', open=False):
                ann_file = gr.File(
                    file_types=['.json'], type='filepath', height=110, elem_id='assign-json',
                    label='Taken instead of the boxes above; the image is found by its file_name',
                )  # fmt: skip
            _fetch_nothing(ann_file)
            first = _choice('Config', desk.offer.assigners, 'assign-first')
            second = gr.Dropdown(
                ['', *names], value=names[1] if len(names) > 1 else '', label='Compare with',
                elem_id='assign-second',
            )  # fmt: skip
            run = gr.Button(
                'Show assignment', variant='primary', elem_id='assign-run', interactive=bool(names)
            )
        with gr.Column(scale=5, min_width=400):
            start = said('Send an image and boxes, or draw an example, and press Show assignment.')
            answer = _answer(start)
            gallery = _gallery(every_level, 3, 'assign-gallery')
            compared = _gallery('', 3, 'assign-compared', visible=False)
            gr.Markdown(LEGEND, elem_classes='about')
            table = _table(['config', 'object', 'threshold', 'positives'], 'assign-table')
            file = _download('Download all levels as one picture (png)', 'assign-file')

    def blanks() -> tuple[Any, ...]:
        return gr.update(value=None, label=every_level), _hidden(), None, _no_file()

    def act(*values: Any) -> tuple[Any, ...]:
        def contents() -> tuple[Any, ...]:
            sentence, pictures, head, rows, path = desk.assign(*values)
            one, *more = [gr.update(value=panels, label=name, visible=True) for name, panels in pictures]
            shown = gr.update(value={'headers': head, 'data': rows})
            return sentence, one, *(more or [_hidden()]), shown, gr.update(value=path, interactive=True)

        return attempt(contents, blanks())

    inputs, outputs = [upload, boxes, ann_file, first, second], [answer, gallery, compared, table, file]
    running = run.click(act, inputs, outputs, show_progress_on=gallery, **_ONE_AT_A_TIME)
    _empty_on_change(upload, running, outputs, lambda: (start, *blanks()))
    _example(example, desk.example, [upload, boxes])


def _answer(content: str) -> gr.HTML:
    return gr.HTML(content, padding=False, elem_classes='answers')


def _upload(desk: Desk) -> gr.Image:
    """An image field whose content reaches the desk as a file: gradio would decode it, whatever its size."""
    limits = desk.limits
    field = gr.Image(
        type='filepath', sources=['upload', 'clipboard'], height=300, buttons=['fullscreen'],
        elem_classes='upload',
        label=f'Image (up to {limits.megabytes:g} MB, {limits.megapixels:g} megapixels)',
        placeholder='Drop an image here\n- or -\nclick to choose a file',
    )  # fmt: skip
    field.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    _fetch_nothing(field)
    return field


def _fetch_nothing(field: gr.Image | gr.File) -> None:
    """Refuse an address in the place of an upload: gradio would fetch what a browser names."""
    move = field.async_move_resource_to_block_cache

    async def move_local(place: str | Path | None) -> str | None:
        if str(place).lower().startswith(('http:', 'https:')):
            raise gr.Error('Addresses are not fetched; send the file itself.', print_exception=False)
        return await move(place)

    field.async_move_resource_to_block_cache = move_local  # type: ignore[assignment]


def _empty_on_change(
    upload: gr.Image, running: Any, outputs: list[Any], blanks: Callable[[], tuple[Any, ...]]
) -> None:
    """Let no results stand beside an image that they are not of; those on their way are not shown either."""
    upload.change(blanks, None, outputs, cancels=[running], **_AT_ONCE)


def _example(button: gr.Button, draw: Callable[[int], tuple[Any, ...]], outputs: list[Any]) -> None:
    """Let a button draw example after example."""
    count = gr.State(0)
    button.click(lambda number: (number + 1, *draw(number)), count, [count, *outputs], **_AT_ONCE)


def _choice(label: str, offered: Mapping[str, str], elem_id: str) -> gr.Dropdown:
    names = list(offered)
    return gr.Dropdown(names, value=names[0] if names else None, label=label, elem_id=elem_id)


def _threshold(value: float) -> gr.Slider:
    return gr.Slider(0, 1, value=value, step=0.05, label='Least score')


def _picture(label: str, elem_id: str) -> gr.Image:
    return gr.Image(
        label=label, interactive=False, format='png', elem_id=elem_id, buttons=['download', 'fullscreen'],
        elem_classes='result',
    )  # fmt: skip


def _no_file() -> dict[str, Any]:
    """A download that is none; made anew each time, for gradio empties the updates that it is given."""
    return gr.update(value=None, interactive=False)


def _hidden() -> dict[str, Any]:
    return gr.update(value=None, visible=False)


def _gallery(label: str, columns: int, elem_id: str, visible: bool = True) -> gr.Gallery:
    return gr.Gallery(
        label=label, visible=visible, columns=columns, height='auto', elem_id=elem_id, format='png',
        elem_classes='pictures', buttons=['download', 'fullscreen'], object_fit='contain',
    )  # fmt: skip


def _table(head: list[str], elem_id: str) -> gr.Dataframe:
    return gr.Dataframe(
        headers=head,
        interactive=False,
        wrap=True,
        max_height=360,
        elem_id=elem_id,
        show_label=False,
        buttons=['copy'],
    )


def _download(label: str, elem_id: str) -> gr.DownloadButton:
    return gr.DownloadButton(label, interactive=False, elem_id=elem_id, size='sm')
