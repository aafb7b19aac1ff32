"""What TRL itself makes of converted letters: every answer is learnt to its last token, and nothing else is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

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
