"""What TRL itself makes of converted letters: every answer is learnt to its last token, and nothing else is."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, TrlParser

from ocr_sprint.core.errors import DataError
from ocr_sprint.review.preflight import preflight
from ocr_sprint.tools.preflight import main
from ocr_sprint.training.chat import chat_measure

ON_CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "max_length": None}
IGNORED = -100


def batches(trainer):
    """What the trainer puts before the model, row by row."""
    for row in trainer.train_dataset:
        batch = trainer.data_collator([row])
        yield batch["input_ids"][0].tolist(), batch["labels"][0].tolist()


def assert_only_the_answer_is_learnt(tokenizer, tokens, labels, conversation):
    """The labels are the answer's tokens and the end of its turn, where the template writes them."""
    assert tokenizer.decode(tokens) == tokenizer.apply_chat_template(conversation, tokenize=False)
    learnt = [at for at, label in enumerate(labels) if label != IGNORED]
    assert learnt == list(range(learnt[0], learnt[-1] + 1))
    assert [labels[at] for at in learnt] == tokens[learnt[0] : learnt[-1] + 1]
    assert tokenizer.decode([labels[at] for at in learnt]) == conversation[-1]["content"] + "<|im_end|>"
    question = tokenizer.apply_chat_template(conversation[:-1], tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(tokens[: learnt[0]]) == question
    assert labels[learnt[-1]] == tokenizer.eos_token_id


def test_of_a_prompt_and_its_completion_only_the_completion_is_learnt(rows, tokenizer, model, tmp_path):
    samples = rows("prompt_completion")
    assert samples.num_rows == 20
    arguments = SFTConfig(output_dir=str(tmp_path), **ON_CPU)
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=samples, processing_class=tokenizer)
    found = list(batches(trainer))
    assert len(found) == 20
    for sample, (tokens, labels) in zip(samples, found, strict=True):
        conversation = sample["prompt"] + sample["completion"]
        assert_only_the_answer_is_learnt(tokenizer, tokens, labels, conversation)
        json.loads(sample["completion"][0]["content"])
    # TRL's default length would have cut these in silence.
    assert max(len(tokens) for tokens, _ in found) > SFTConfig.max_length


def test_of_messages_only_the_last_is_learnt(rows, tokenizer, model, tmp_path):
    samples = rows("messages")
    arguments = SFTConfig(output_dir=str(tmp_path), assistant_only_loss=True, **ON_CPU)
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=samples, processing_class=tokenizer)
    found = list(batches(trainer))
    assert len(found) == 20
    for sample, (tokens, labels) in zip(samples, found, strict=True):
        assert_only_the_answer_is_learnt(tokenizer, tokens, labels, sample["messages"])


def test_a_preference_is_the_approved_answer_over_the_first_output(rows, tokenizer, model, tmp_path):
    samples = rows("preference")
    assert samples.num_rows == 10
    arguments = DPOConfig(output_dir=str(tmp_path), **ON_CPU)
    lora = LoraConfig(target_modules="all-linear")
    trainer = DPOTrainer(
        model=model, args=arguments, train_dataset=samples, processing_class=tokenizer, peft_config=lora
    )
    assert len(trainer.train_dataset) == 10
    for sample, row in zip(samples, trainer.train_dataset, strict=True):
        question = tokenizer.apply_chat_template(sample["prompt"], tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(row["prompt_ids"]) == question
        for name in ("chosen", "rejected"):
            assert tokenizer.decode(row[f"{name}_ids"]) == sample[name][0]["content"] + "<|im_end|>"


@pytest.mark.parametrize(
    ("command", "settings"), [("sft", "trl_sft.yaml"), ("sft", "trl_sft_messages.yaml"), ("dpo", "trl_dpo.yaml")]
)
def test_the_settings_train_as_they_are(folder, model_folder, tmp_path, command, settings):
    # Only what a machine without a network and without a GPU cannot have is changed: the model, and the arithmetic.
    changed = ["--model_name_or_path", str(model_folder), "--output_dir", str(tmp_path / "out"), "--max_steps", "2"]
    processor = ["--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    program = str(Path(sys.executable).with_name("trl"))
    run = subprocess.run(
        [program, command, "--config", settings, *changed, *processor], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    adapter = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    written = yaml.safe_load((folder / settings).read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (written["lora_r"], written["lora_alpha"])
    assert "eval_loss" in run.stdout + run.stderr


def parsed(path, *changes):
    """What TRL's own parser makes of a file of settings; it refuses what it does not know."""
    return TrlParser((ScriptArguments, SFTConfig, ModelConfig)).parse_args_and_config(
        ["--config", str(path), "--use_cpu", "true", "--bf16", "false", *changes]
    )


@pytest.mark.parametrize("name", ["trl_sft.yaml", "trl_sft_messages.yaml"])
def test_the_settings_are_those_that_trls_parser_takes(folder, tmp_path, name):
    script, training, model = parsed(folder / name, "--output_dir", str(tmp_path))
    assert script.dataset_name == ("./messages" if "messages" in name else "./prompt_completion")
    assert (training.max_length, training.assistant_only_loss) == (None, "messages" in name)
    assert (model.use_peft, model.lora_r, model.lora_target_modules) == (True, 16, "all-linear")
    (tmp_path / name).write_text((folder / name).read_text() + "max_seq_length: 1024\n")
    with pytest.raises((SystemExit, ValueError)):
        parsed(tmp_path / name, "--output_dir", str(tmp_path))


def test_what_trl_would_cut_in_silence_is_told_before(folder, rows, tokenizer, model, model_folder, tmp_path, capsys):
    samples = rows("prompt_completion")
    arguments = SFTConfig(output_dir=str(tmp_path), **{**ON_CPU, "max_length": 1200})
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=samples, processing_class=tokenizer)
    ends = [labels[-1] == tokenizer.eos_token_id for _, labels in batches(trainer)]
    assert not all(ends), "TRL cuts answers and says nothing"
    with pytest.raises(DataError, match=r"prompt_completion/\w+.jsonl, line \d+, id \S+: its .* would be cut"):
        preflight(folder, chat_measure(tokenizer), 1200)
    assert main([str(folder), "--tokenizer", str(model_folder), "--max-length", "1200"]) == 1
    assert "would be cut: --max-length is 1200; raise it" in capsys.readouterr().err


def test_the_lengths_of_preflight_are_those_of_trl(folder, rows, tokenizer, model, tmp_path):
    found = preflight(folder, chat_measure(tokenizer), 10_000)
    samples = rows("prompt_completion")
    arguments = SFTConfig(output_dir=str(tmp_path), **ON_CPU)
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=samples, processing_class=tokenizer)
    assert max(len(tokens) for tokens, _ in batches(trainer)) <= found.longest
    measured = [chat_measure(tokenizer)(row["prompt"], row["completion"]) for row in samples]
    assert [one.tokens for one in measured] == [len(tokens) for tokens, _ in batches(trainer)]


class FastLanguageModel:
    """Stands in for Unsloth's loader, over transformers and peft, with the names that the script calls."""

    @staticmethod
    def from_pretrained(name, *, max_seq_length, load_in_4bit):
        assert max_seq_length > 0 and not load_in_4bit
        return AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)

    @staticmethod
    def get_peft_model(model, *, r, lora_alpha, lora_dropout, random_state, target_modules):
        assert random_state == 0
        lora = LoraConfig(r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, target_modules=target_modules)
        return get_peft_model(model, lora)


@pytest.fixture
def unsloth(folder, model_folder, tmp_path, monkeypatch):
    """A function that runs the script of a copy of the folder, with room for so many tokens."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastLanguageModel=FastLanguageModel))
    monkeypatch.setattr(sys, "argv", ["unsloth_train.py", str(model_folder)])
    monkeypatch.chdir(copy)

    def run(tokens):
        script = copy / "unsloth_train.py"
        text = re.sub(r"^TOKENS = \d+", f"TOKENS = {tokens}", script.read_text(), flags=re.MULTILINE)
        script.write_text(text.replace("num_train_epochs=3", "num_train_epochs=1"))  # shorter, and nothing else
        return runpy.run_path(str(script), run_name="__main__")

    run.folder = copy
    return run


def test_the_script_for_unsloth_trains_where_its_loader_is_stood_in_for(unsloth):
    trainer = unsloth(8000)["trainer"]
    assert any("eval_loss" in line for line in trainer.state.log_history)
    adapter = json.loads((unsloth.folder / "model_unsloth" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (16, 32)


@pytest.mark.parametrize("generation", [7, 8])
@pytest.mark.parametrize("patched", [False, True], ids=["torch", "as Unsloth patches old torches"])
def test_the_script_for_unsloth_takes_no_arithmetic_that_a_card_only_emulates(
    unsloth, monkeypatch, generation, patched
):
    card = SimpleNamespace(name="a card", total_memory=2**34, major=generation)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: card)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _device: True)
    if patched:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: generation >= 8)
    told = {}

    def settings(**given):
        told.update(given)
        sys.exit("far enough")

    monkeypatch.setattr("trl.SFTConfig", settings)
    with pytest.raises(SystemExit, match="far enough"):
        unsloth(8000)
    assert (told["bf16"], told["fp16"], told["use_cpu"]) == (generation >= 8, generation < 8, False)


def test_the_script_for_unsloth_stops_at_a_row_that_would_be_cut(unsloth):
    with pytest.raises(SystemExit, match=r"^train row \d+, \S+: \d+ tokens would be cut at 1200; raise TOKENS$"):
        unsloth(1200)
    assert not (unsloth.folder / "model_unsloth").exists()
