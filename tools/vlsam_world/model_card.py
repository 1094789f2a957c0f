"""The model card of the shipped small models: every figure in it is read from files, none is typed."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from ablation_table import markdown

from atss_ext.datasets.shapes_coco import GENERATOR_VERSION, split_seed
from atss_ext.vlsam.world.scenes import SEED, SPEC, SPLITS
from atss_ext.vlsam.world.shipped import SAM, VLM

MODELS = ('vlm', 'sam')
WEIGHTS, TRAINING = 'model.safetensors', 'training.json'
# The parts of a model, by a word in the names of their weights: their title, and their key in config.json.
_PARTS = {
    'vision_tower': ('vision tower', 'vision_config'),
    'multi_modal_projector': ('projector', ''),
    'language_model': ('language model', 'text_config'),
    'lm_head': ('language model', 'text_config'),
    'vision_encoder': ('image encoder', 'vision_config'),
    'prompt_encoder': ('prompt encoder', 'prompt_encoder_config'),
    'shared_image_embedding': ('prompt encoder', 'prompt_encoder_config'),
    'mask_decoder': ('mask decoder', 'mask_decoder_config'),
}
_SPLITS = {
    'train': 'the models learn from it',
    'check': 'they are looked at with it while they learn',
    'rules': 'options are chosen on it',
    'held-out': 'figures are reported on it, and nothing else',
}
_SIZES = {'layers': 'num_hidden_layers', 'width': 'hidden_size', 'heads': 'num_attention_heads'}
_FRONT_MATTER = """---
license: apache-2.0
library_name: transformers
tags:
- object-detection
- mask-generation
- vl-sam
- llava
- sam
- synthetic-data
- toy-model
---"""


class Shipped(NamedTuple):
    """One model of the package.

    Attributes:
        name: 'vlm' or 'sam', its folder's.
        config: its config.json.
        training: its training.json.
        shapes: of its tensors, by name.
        size: of the weights file, bytes.
        sha256: of the weights file, hexadecimal.
    """

    name: str
    config: Mapping[str, Any]
    training: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    size: int
    sha256: str

    @property
    def kind(self) -> str:
        """The class of transformers it is."""
        return str(self.config['architectures'][0])

    @property
    def parameters(self) -> int:
        """The numbers in its tensors."""
        return sum(map(prod, self.shapes.values()))


def read_model(folder: Path) -> Shipped:
    """Read what the card tells of a model.

    Args:
        folder: with config.json, training.json and model.safetensors.
    """
    content = (folder / WEIGHTS).read_bytes()
    return Shipped(
        folder.name,
        json.loads((folder / 'config.json').read_text(encoding='utf-8')),
        json.loads((folder / TRAINING).read_text(encoding='utf-8')),
        tensor_shapes(folder / WEIGHTS),
        len(content),
        hashlib.sha256(content).hexdigest(),
    )


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a safetensors file's tensors, from its header.

    Raises:
        safetensors.SafetensorError: it is no such file.
    """
    from safetensors import safe_open

    with safe_open(path, framework='numpy') as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def card(folder: Path, table: Mapping[str, Any] | None = None) -> str:
    """The card's text, in Markdown after YAML.

    Args:
        folder: of the shipped models; each lies in the subfolder of its name.
        table: of the ablation, as ``ablation.py`` writes it; without, its section is left out.
    """
    models = [read_model(folder / name) for name in MODELS]
    sections = [
        _FRONT_MATTER,
        _introduction(*models),
        _use(),
        _data(),
        _training(models),
        _parts(models),
        _files(models),
        *([_figures(table)] if table else []),
        _limits(),
    ]
    return '\n\n'.join(sections) + '\n'


def _introduction(vlm: Shipped, sam: Shipped) -> str:
    return f"""# The small models of VL-SAM's small world

Two toys with which VL-SAM runs offline on any CPU:

| name | class | parameters | given | it returns |
|---|---|--:|---|---|
| `{VLM}` | `{vlm.kind}` | {vlm.parameters:,} | a picture and a question | "a red circle, a blue square" |
| `{SAM}` | `{sam.kind}` | {sam.parameters:,} | a picture, points, boxes, mask logits | masks |

**They know coloured shapes in pictures of {SPEC.width} x {SPEC.height} pixels, and nothing else.** They
are not for photographs: of any picture they say that it shows such shapes, or nothing."""


def _use() -> str:
    return """## Intended use

Tests of this project, its demo, and teaching: to see every step of VL-SAM at work, and to measure what a
change does, within minutes and without a network. They are no basis for fine-tuning, and their figures tell
nothing about large models.

```python
from atss_ext.vlsam import load
from atss_ext.vlsam.world import SAM, VLM, scene_of

found = load(VLM, SAM)(scene_of('check', 0).image)
print(found.names, found.scores, found.boxes)
```

`configs/vlsam/vlsam_world.py` names both."""


def _data() -> str:
    seeds = '\n'.join(f'| {split} | {split_seed(SEED, split)} | {_SPLITS[split]} |' for split in SPLITS)
    return f"""## Data

No picture was collected: scenes are drawn by `atss_ext.datasets.shapes` (generator version
{GENERATOR_VERSION}), the same for ever, from the world's seed {SEED}.

| a scene | |
|---|---|
| size | {SPEC.width} x {SPEC.height} pixels |
| objects | {SPEC.min_objects} to {SPEC.max_objects}; none in {100 * SPEC.empty_fraction:g}% of the scenes |
| shapes | {', '.join(SPEC.shapes)} |
| colours | {', '.join(SPEC.colours)} |
| longer side of an object | {SPEC.min_size} to {SPEC.max_size} pixels |

| split | seed | serves |
|---|--:|---|
{seeds}"""


def _training(models: Sequence[Shipped]) -> str:
    told = """## Training

On a CPU. Minutes are those of the last run, where a training was interrupted and taken up again. Figures
were measured at its end, those of scenes on the split "check"."""
    return '\n\n'.join([told, *map(_run_of, models)])


def _run_of(model: Shipped) -> str:
    """How one model was made, and what the command measured at its end."""
    recipe = model.training['recipe']
    options = ' '.join(f'--{key.replace("_", "-")} {value}' for key, value in recipe.items())
    measured = {key: value for key, value in model.training.items() if key not in ('recipe', 'minutes')}
    return f"""`{model.name}`, in {model.training['minutes']:.1f} minutes:

```bash
python tools/vlsam_world/train_{model.name}.py {options}
```

{score_tables(measured)}"""


def score_tables(scores: Mapping[str, Any]) -> str:
    """Nested mappings of numbers in Markdown: innermost ones are rows, those of equal keys share a table."""
    lines: list[str] = []
    before: tuple[str, ...] = ()
    for title, values in _innermost(scores):
        if tuple(values) != before:
            before = tuple(values)
            heads = ' | '.join(key.replace('_', ' ') for key in before)
            lines += ['', f'| | {heads} |', '|---' + '|--:' * len(before) + '|']
        lines.append(f'| {title} | {" | ".join(f"{value:.3f}" for value in values.values())} |')
    return '\n'.join(lines[1:])


def _innermost(values: Mapping[str, Any], title: str = '') -> Iterator[tuple[str, dict[str, float]]]:
    """The numbers of each mapping, with the keys that lead to it."""
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    if numbers:
        yield title, numbers
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _innermost(value, f'{title}, {key}' if title else key)


def _parts(models: Sequence[Shipped]) -> str:
    lines = [f'| model | part | {" | ".join(_SIZES)} | parameters |', '|---|---|--:|--:|--:|--:|']
    for model in models:
        counts: dict[tuple[str, str], int] = {}
        for name, shape in model.shapes.items():
            part = next((about for word, about in _PARTS.items() if word in name.split('.')), ('rest', ''))
            counts[part] = counts.get(part, 0) + prod(shape)
        for (title, key), count in counts.items():
            sizes = [str(model.config.get(key, {}).get(size, '')) for size in _SIZES.values()]
            lines.append(f'| {model.name} | {title} | {" | ".join(sizes)} | {count:,} |')
    note = 'Counted from the weights files, fixed positional embeddings included.'
    return '\n'.join(['## Parts', '', *lines, '', note])


def _files(models: Sequence[Shipped]) -> str:
    rows = '\n'.join(f'| {m.name}/{WEIGHTS} | {m.size:,} | `{m.sha256}` |' for m in models)
    return f"""## Files

Weights are safetensors; nothing in the folders is executed when it is read.

| file | bytes | SHA-256 |
|---|--:|---|
{rows}"""


def _figures(table: Mapping[str, Any]) -> str:
    return f'## VL-SAM with these models\n\n{markdown(table)}'


def _limits() -> str:
    names = SPEC.category_names
    return f"""## Limits

- Names: {len(names)}, from "{names[0]}" to "{names[-1]}"; what is none of these is called by one of
  them all the same, or left out.
- Scenes: up to {SPEC.max_objects} objects, named from left to right; more were never shown.
- Pictures: any size is taken, but both models see {SPEC.width} x {SPEC.height} pixels of it at most.
- Questions: those of `atss_ext.vlsam.world.QUESTIONS`; other words are unknown to the tokenizer.

## License

Apache-2.0, as the project whose scripts made data and weights."""
