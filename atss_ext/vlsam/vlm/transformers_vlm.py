"""A vision-language model of transformers, as VL-SAM uses it."""

import inspect
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atss_ext.vlsam.hub import require_transformers
from atss_ext.vlsam.protocols import Answer, Image, Reading, VlsamError
from atss_ext.vlsam.vlm import loading
from atss_ext.vlsam.vlm.capture import capturing
from atss_ext.vlsam.vlm.decoding import decode
from atss_ext.vlsam.vlm.families import token_grids
from atss_ext.vlsam.vlm.inputs import Prompt, PromptBuilder, append_tokens, collate
from atss_ext.vlsam.vlm.sampling import SeededSampler

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


class TransformersVLM:
    """LLaVA-1.5, LLaVA-Next, Qwen2-VL, Qwen2.5-VL, Qwen3-VL, InternVL, SmolVLM or Idefics3.

    Answers are generated as transformers does it; :meth:`read` runs prompt and answer through the model once
    more and keeps the queries and keys of every layer, so that no attention matrix need exist. The defaults
    of sampling are the paper's (section 4.1: temperature 0.8, top-p 0.1). What a checkpoint's own
    ``generation_config`` says about sampling is set aside, its end tokens are kept.

    The model is not a submodule of anything: :meth:`to` moves it. Calls from several threads wait for each
    other.

    Args:
        model: a folder or a model of the Hugging Face hub, with weights in safetensors; or one that is built,
            which is put into evaluation mode.
        processor: a folder or name; None is that of ``model``. A model that is built needs one that is built.
        device: 'auto' is a GPU where there is one, or where a built model is.
        dtype: of the weights, such as 'bfloat16'; 'auto' is the checkpoint's on a GPU, float32 on a CPU, and
            leaves a built model as it is.
        max_new_tokens: an answer ends after so many at the latest; the name it is cut off in is no object's.
        temperature: of sampling; 0 takes the likeliest token always.
        top_p: of sampling, in (0, 1].
        batch_size: so many questions are answered at once.
        prompt_template: with ``{image}`` and ``{question}``, in place of the processor's chat template.
        image_options: for the image processor, such as ``{'max_patches': 4}`` (InternVL), ``{'size':
            {'shortest_edge': 3136, 'longest_edge': 802816}}`` (Qwen) or ``{'do_image_splitting': False}``
            (SmolVLM): fewer tokens take less time and memory. LLaVA-1.5 is shown the whole image, squeezed
            into its square; with ``{'do_center_crop': True}`` its processor cuts the ends off, as it does by
            itself. Qwen-VL takes 1280 tokens an image at most (a ``longest_edge`` of 1280 x 28 x 28 pixels,
            Qwen3-VL 1280 x 32 x 32; a smaller limit of the checkpoint stays), where published checkpoints
            allow 16384; a ``size`` of your own replaces that.
        offload: keep queries and keys in main memory.
        revision: of a model of the hub.
        local_files_only: never ask the network.
        load_options: for ``from_pretrained``, such as ``{'device_map': 'auto'}`` or a
            ``quantization_config``; a device map overrules ``device``.

    Raises:
        ValueError: an argument is out of range, or contradicts another.
        VlsamError: transformers is missing or too old, or the model cannot be loaded or is not supported.
    """

    def __init__(
        self,
        model: 'str | os.PathLike[str] | PreTrainedModel',
        processor: 'str | os.PathLike[str] | ProcessorMixin | None' = None,
        device: str | torch.device = 'auto',
        dtype: str | torch.dtype = 'auto',
        max_new_tokens: int = 256,
        temperature: float = 0.8,
        top_p: float = 0.1,
        batch_size: int = 4,
        prompt_template: str | None = None,
        image_options: Mapping[str, Any] | None = None,
        offload: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        load_options: Mapping[str, Any] | None = None,
    ) -> None:
        _check_sampling(max_new_tokens, temperature, top_p, batch_size)
        require_transformers('TransformersVLM')
        source = {'revision': revision or 'main', 'local_files_only': local_files_only}
        if isinstance(model, str | os.PathLike):
            self.model, self.processor = _load(model, processor, source, device, dtype, load_options or {})
        else:
            self.model, self.processor = _take(model, processor, device, dtype, load_options)
        self.max_new_tokens = max_new_tokens
        self.temperature = float(temperature)
        self.top_p = float(top_p)
        self.batch_size = batch_size
        self.offload = offload
        self.prompts = PromptBuilder(self.model.config, self.processor, prompt_template, image_options or {})
        self._lock = threading.RLock()

    def to(self, device: torch.device | str) -> 'TransformersVLM':
        """Move the model; one that is spread over devices or quantised stays."""
        placed = getattr(self.model, 'hf_device_map', None) or getattr(self.model, 'is_quantized', False)
        if not placed:
            self.model.to(device)
        return self

    @torch.no_grad()
    def answer(self, images: Sequence[Image], questions: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        """Answer question i about image i.

        Args:
            images: B images, RGB uint8 [H, W, 3].
            questions: B questions.
            seeds: B seeds; an answer depends on its own image, question and seed alone (up to rounding, which
                the length of other prompts in its batch can change).

        Returns:
            B answers. ``token_ids`` end with the end token where one was generated; where none was, the
            answer was cut at ``max_new_tokens`` and is not ``finished``.

        Raises:
            ValueError: B differs.
            VlsamError: an image the model cannot take.
        """
        if not len(images) == len(questions) == len(seeds):
            raise ValueError(
                f'images, questions and seeds must be as many, but are {len(images)}, {len(questions)} and '
                f'{len(seeds)}.'
            )
        answers: list[Answer] = []
        for start in range(0, len(images), self.batch_size):
            batch = slice(start, start + self.batch_size)
            prompts = [
                self.prompts.prompt(image, question)
                for image, question in zip(images[batch], questions[batch], strict=True)
            ]
            answers += self._generate(prompts, seeds[batch])
        return answers

    @torch.no_grad()
    def read(self, answer: Answer) -> Reading:
        """Read an answer again, in one pass over prompt and answer, and keep queries and keys.

        Args:
            answer: of :meth:`answer`.

        Returns:
            the reading; all its tensors lie on one device, the model's or, with ``offload``, the CPU.

        Raises:
            VlsamError: the answer is not of this class; its image tokens do not match the grids; or the model
                attends in a way that attention flow cannot express.
        """
        if not isinstance(answer.prompt, Prompt):
            raise VlsamError(
                'TransformersVLM.read takes answers that TransformersVLM gave, but this one has a prompt of '
                f'type {type(answer.prompt).__name__}; read it with the model that gave it.'
            )
        seen = self.prompts.preprocess(answer.prompt)
        start = seen.inputs['input_ids'].size(1)
        longer = append_tokens(seen.inputs, answer.token_ids)
        grids = token_grids(seen._replace(inputs=longer))  # a placeholder in the answer is one too many
        with self._lock, capturing(self.model, 'cpu' if self.offload else None) as recorder:
            logits = self._last_logits(longer, len(answer.token_ids) + 1)
        layers = recorder.layers(self.model.config.text_config.num_hidden_layers)
        device = layers[0].query.device
        return Reading(
            layers=layers,
            start=start,
            log_probs=_log_probs(logits, answer.token_ids).to(device),
            grids=[grid._replace(positions=grid.positions.to(device)) for grid in grids],
        )

    def _generate(self, prompts: list[Prompt], seeds: Sequence[int]) -> list[Answer]:
        """One batch of answers."""
        from transformers import GenerationConfig

        ends = self._end_tokens()
        pad = self.processor.tokenizer.pad_token_id
        pad = pad if pad is not None else next(iter(ends), 0)
        inputs = collate([self.prompts.preprocess(prompt).inputs for prompt in prompts], pad)
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            # A value that is not set would be the checkpoint's.
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
            eos_token_id=ends or None,
            pad_token_id=pad,
        )
        sampler = SeededSampler(seeds, self.temperature, self.top_p, self._placeholders())
        with self._lock:
            ids = self.model.generate(
                **self._place(inputs), generation_config=config, logits_processor=[sampler]
            )
        length = inputs['input_ids'].size(1)
        return [
            self._answer(prompt, row, ends)
            for prompt, row in zip(prompts, ids[:, length:].tolist(), strict=True)
        ]

    def _answer(self, prompt: Prompt, token_ids: list[int], ends: list[int]) -> Answer:
        """An answer of generated tokens, which end at their end token; padding follows it."""
        end = next((index for index, token in enumerate(token_ids) if token in ends), None)
        spoken = token_ids if end is None else token_ids[: end + 1]
        text, spans = decode(self.processor.tokenizer, spoken)
        return Answer(text, spans, spoken, prompt, finished=end is not None)

    def _last_logits(self, inputs: Mapping[str, Tensor], count: int) -> Tensor:
        """Logits [count, V] of the last tokens of one sequence, in one pass."""
        keeps = 'logits_to_keep' in inspect.signature(self.model.forward).parameters
        options = {'logits_to_keep': count} if keeps else {}
        logits: Tensor = self.model(**self._place(inputs), use_cache=False, **options).logits
        return logits[0, -count:]

    def _place(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs where the model wants them, pixels in its dtype."""
        device, dtype = self.model.device, self.model.dtype
        return {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in inputs.items()
        }

    def _end_tokens(self) -> list[int]:
        """Tokens that end an answer."""
        found = self.model.generation_config.eos_token_id
        ends = list(found) if isinstance(found, list | tuple) else [found]
        ends.append(self.processor.tokenizer.eos_token_id)
        return sorted({int(end) for end in ends if end is not None})

    def _placeholders(self) -> list[int]:
        """Tokens that stand for pixels: generated, they would be taken for an image that is not there."""
        config = self.model.config
        names = ('image_token_id', 'video_token_id', 'vision_start_token_id', 'vision_end_token_id')
        found = {getattr(config, name, None) for name in names} - {None}
        return sorted(token for token in found if token < config.text_config.vocab_size)


def _check_sampling(max_new_tokens: int, temperature: float, top_p: float, batch_size: int) -> None:
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError(
            f'max_new_tokens and batch_size must be at least 1, but are {max_new_tokens} and {batch_size}.'
        )
    if not 0 <= temperature < float('inf'):
        raise ValueError(f'temperature must be 0 (greedy) or more, but is {temperature}.')
    if not 0 < top_p <= 1:
        raise ValueError(f'top_p must be above 0 and at most 1, but is {top_p}.')


def _load(
    model: str | os.PathLike[str],
    processor: Any,
    source: Mapping[str, Any],
    device: str | torch.device,
    dtype: str | torch.dtype,
    options: Mapping[str, Any],
) -> tuple[Any, Any]:
    """Model and processor by name."""
    name = os.path.expanduser(os.fspath(model))
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if dtype == 'auto' and torch.device(device).type == 'cpu' and 'device_map' not in options:
        dtype = 'float32'  # half precision is slow on CPUs, and bfloat16 coarse
    built = loading.load_model(name, source, dtype, options)
    if 'device_map' not in options and not getattr(built, 'is_quantized', False):
        built.to(device)
    if processor is None or isinstance(processor, str | os.PathLike):
        path = name if processor is None else os.path.expanduser(os.fspath(processor))
        processor = loading.load_processor(
            path, source if processor is None else {**source, 'revision': 'main'}
        )
    return built, processor


def _take(
    model: Any,
    processor: Any,
    device: str | torch.device,
    dtype: str | torch.dtype,
    options: Mapping[str, Any] | None,
) -> tuple[Any, Any]:
    """A model and a processor that are built."""
    if processor is None or isinstance(processor, str | os.PathLike):
        raise ValueError(
            f'a model that is built needs a processor that is built, but processor is {processor!r}; pass '
            'AutoProcessor.from_pretrained(...), or name the model.'
        )
    if options:
        raise ValueError(f'load_options={dict(options)!r} have no effect on a model that is built.')
    if dtype != 'auto':
        model = model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    if device != 'auto':
        model = model.to(device)
    return model.eval(), processor


def _log_probs(logits: Tensor, token_ids: Sequence[int]) -> Tensor:
    """Log probabilities float32 [T] of tokens, each from the logits [T + 1, V] of the token before it."""
    logits = logits[: len(token_ids)].float()
    tokens = torch.tensor(list(token_ids), dtype=torch.int64, device=logits.device).view(-1, 1)
    return logits.gather(1, tokens)[:, 0] - logits.logsumexp(1)
