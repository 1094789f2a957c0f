"""A CLIP of random weights and a tokenizer that was trained, as save_pretrained writes them."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast


def tiny_clip(folder: Path) -> tuple[CLIPModel, Any]:
    """Write both to the folder and return them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ['<|startoftext|>', '<|endoftext|>']
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(['a photo of a dog', 'a red sofa', 'a pickup truck'], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<|startoftext|> $A <|endoftext|>', special_tokens=list(zip(special, (0, 1), strict=True))
    )
    layers = {'hidden_size': 32, 'intermediate_size': 37, 'num_hidden_layers': 2, 'num_attention_heads': 4}
    text = {
        **layers, 'vocab_size': 300, 'max_position_embeddings': 20, 'bos_token_id': 0, 'eos_token_id': 1,
        'pad_token_id': 1,
    }  # fmt: skip
    vision = {**layers, 'image_size': 8, 'patch_size': 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.eval().save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1], pad_token=special[1]
    )
    fast.save_pretrained(folder)
    return model, fast
