"""What a fine-tune is said to take, beside what a tiny one takes: weights and adapter exactly, activations nearly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from ocr_sprint.training.finetune_memory import Way, _in_parts, estimate, shape_of
from ocr_sprint.training.finetune_model import Base, Machine, check_model, find_machine
from ocr_sprint.training.finetune_plan import TINY, Mode, Plan, Settings
from ocr_sprint.training.regression import build_model
from ocr_sprint.training.sft_model import build_causal

ROWS, TOKENS, DIMENSIONS = 4, 48, 3
Make = Callable[..., Base]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that makes a Qwen2 of these sizes."""

    def folder(mode: Mode, layers: int = 2, tied: bool = False) -> Base:
        tokenizer = tiny_tokenizer(["satu dua tiga"])
        sizes = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2}
        config = Qwen2Config(vocab_size=999, num_hidden_layers=layers, tie_word_embeddings=tied, **sizes)
        Qwen2ForCausalLM(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return check_model(Plan({}, str(tmp_path), tmp_path / "out", mode), find_machine(cpu=True))

    return folder


def build(base: Base, mode: Mode, settings: Settings, half: bool) -> Any:
    """The model that a run would train."""
    machine = Machine(None, 0, half)
    if mode == "sft":
        return build_causal(base, settings, machine, 0)
    return build_model(base, settings, DIMENSIONS, machine, 0)


def held(model: Any, rows: int = ROWS, tokens: int = TOKENS) -> int:
    """Bytes of all tensors that are kept for the way back of a step, each once, without the weights."""
    own = {part.untyped_storage().data_ptr() for part in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    model.train()
    half = model.dtype == torch.bfloat16
    backbone = model.get_base_model().model
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
        said = backbone(input_ids=torch.ones(rows, tokens, dtype=torch.long), use_cache=False)
    assert said.last_hidden_state.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("mode", ["regression", "sft"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
def test_weights_and_adapter_are_exact(make: Make, mode: Mode, half: bool, tied: bool) -> None:
    base = make(mode, tied=tied)
    model = build(base, mode, TINY, half)
    need = estimate(shape_of(base, mode, DIMENSIONS), TINY, 0, Way(half, False, False))
    learning = [part for part in model.parameters() if part.requires_grad]
    # PEFT keeps the head that it copies; it is as small as the one that learns.
    frozen = {id(part): part for name, part in model.named_parameters() if "lora_" not in name}
    copies = [part for name, part in model.named_parameters() if "original_module" in name]
    weights = sum(part.nbytes for part in frozen.values()) - sum(part.nbytes for part in copies)
    assert need.weights == weights
    assert need.adapter == 16 * sum(part.numel() for part in learning)
    assert {part.dtype for part in learning} == {torch.float32}
    assert (need.activations, need.logits) == (0, 0)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("layers", [1, 4])
def test_activations_are_right_within_a_fifth(make: Make, half: bool, layers: int) -> None:
    base = make("sft", layers)
    found = held(build(base, "sft", TINY, half))
    need = estimate(shape_of(base, "sft"), TINY, ROWS * TOKENS, Way(half, False, False))
    assert need.activations == pytest.approx(found, rel=0.2)


def test_checkpointing_keeps_the_input_of_each_layer(make: Make) -> None:
    base = make("sft", 4)
    model = build(base, "sft", TINY, half=True)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    shape, way = shape_of(base, "sft"), Way(True, True, False)
    need = estimate(shape, TINY, ROWS * TOKENS, way)
    inner = estimate(shape._replace(layers=1), TINY, ROWS * TOKENS, replace(way, checkpointing=False)).activations
    last_norm = 4 * shape.hidden * ROWS * TOKENS
    assert need.activations - inner + last_norm == pytest.approx(held(model), rel=0.02)


def test_more_rows_take_more(make: Make) -> None:
    model = build(make("sft"), "sft", TINY, half=True)
    assert held(model, rows=8) == pytest.approx(2 * held(model), rel=0.05)


def test_logits_count_where_trl_holds_them_whole(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _in_parts(), "the version in constraints-train.txt does"
    monkeypatch.delattr("trl.trainer.utils.add_fused_lm_head")
    assert not _in_parts()
    shape = shape_of(make("sft"), "sft")
    assert estimate(shape, TINY, 10, Way(True, True, True)).logits == 8 * 999 * 10
