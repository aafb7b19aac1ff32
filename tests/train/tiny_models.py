"""A Qwen2 of random weights, made in seconds and small enough that a test can train it.

    python tests/train/tiny_models.py FOLDER     makes one, so that finetune_qwen can be tried by hand

It proves plumbing and not quality.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from ocr_sprint.training.fiction import fictitious_articles

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(texts: Iterable[str], size: int = 800, template: str | None = TEMPLATE) -> Any:
    """A byte-level tokenizer learnt from texts, with Qwen's special tokens."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    learnt.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=learnt, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def tiny_qwen(vocabulary: int, width: int = 32, layers: int = 2, seed: int = 0) -> Any:
    """A Qwen2 of random weights: some forty thousand of them."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 8192}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, **sizes, **heads))


def tiny_folder(folder: Path, texts: Iterable[str] | None = None, width: int = 32, layers: int = 2) -> Path:
    """A model and its tokenizer as a folder that a command can be pointed at."""
    articles = texts if texts is not None else (article["text"] for article in fictitious_articles(100, seed=9))
    tokenizer = tiny_tokenizer(articles)
    tiny_qwen(len(tokenizer), width, layers).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(tiny_folder(Path(sys.argv[1])))
