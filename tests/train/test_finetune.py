"""Fine-tuning by regression: the traps of the field, kills, files, and mistakes that are told at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_folder, tiny_qwen, tiny_tokenizer
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, Trainer

from ocr_sprint.core.errors import UsageError
from ocr_sprint.tools.cli import main
from ocr_sprint.training import finetune as room
from ocr_sprint.training import finetune_model, finetune_plan, finetune_trainer
from ocr_sprint.training.fiction import fictitious_articles
from ocr_sprint.training.finetune import finetune
from ocr_sprint.training.finetune_model import Machine, check_model, find_machine, load_weights
from ocr_sprint.training.finetune_plan import TINY, Plan
from ocr_sprint.training.finetuned import load_model, open_scorer, save_model
from ocr_sprint.training.regression import MISSING, build_model, collate, masked_loss
from ocr_sprint.training.texts import text_of

QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
TRAIN = 60  # not a multiple of a step of eight rows


def write(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def history(folder: Path) -> list[dict[str, Any]]:
    return read(folder / "history.jsonl")


def figures(folder: Path) -> list[float]:
    """Losses, norms of the gradients and validation errors, in order."""
    keys = ("loss", "grad_norm", "eval_loss", "eval_mae")
    return [line[key] for line in history(folder) for key in keys if key in line]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with scores, a fifth of one dimension missing, and a tiny Qwen."""
    folder = tmp_path_factory.mktemp("finetune")
    articles = list(fictitious_articles(TRAIN + 40, seed=1, words=8))
    for article in articles[::5]:
        del article["uplifting_analysis"]["agency"]
    write(folder / "train.jsonl", articles[:TRAIN])
    write(folder / "val.jsonl", articles[TRAIN : TRAIN + 20])
    write(folder / "test.jsonl", articles[TRAIN + 20 :])
    tiny_folder(folder / "tiny", (article["text"] for article in articles), width=16, layers=1)
    return folder


@pytest.fixture(scope="module")
def plan(place: Path) -> Plan:
    files = {name: [place / f"{name}.jsonl"] for name in ("train", "val", "test")}
    command = ("ocr_sprint", "finetune_qwen", "--train-file", "train.jsonl")
    return Plan(files, str(place / "tiny"), place / "made", config="tiny", epochs=2, command=command)


def words(plan: Plan, output: Path, *more: object) -> list[str]:
    """The command that makes such a run."""
    files = [word for name, paths in plan.files.items() for word in (f"--{name}-file", *paths)]
    own = ["--model", plan.model, "--config", "tiny", "--epochs", plan.epochs, "--output", output]
    return [str(word) for word in (*files, *own, *more)]


@pytest.fixture(scope="module")
def made(plan: Plan) -> Path:
    """A run that nobody disturbed; nobody may change it."""
    finetune(plan)
    return plan.output


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; its exit code, and what it said in its last line."""

    def call(*given: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main(list(map(str, given)))
        said = capsys.readouterr().err.strip().splitlines()
        return code, said[-1] if said else ""

    return call


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_same_however_a_step_is_shared_out(made: Path, plan: Plan, tmp_path: Path) -> None:
    finetune(replace(plan, output=tmp_path / "shared", micro_batch=2))
    assert figures(tmp_path / "shared") == pytest.approx(figures(made), rel=1e-3)
    assert len([line for line in history(made) if "loss" in line]) == 2 * 8


def test_two_processes_learn_what_one_learns(made: Path, plan: Plan, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    line += ["-m", "ocr_sprint.tools.finetune_qwen", *words(plan, tmp_path / "two")]
    done = subprocess.run(line, env=QUIET, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert figures(tmp_path / "two") == pytest.approx(figures(made), rel=1e-3)
    mine, others = ([line["predictions"] for line in read(at / "predictions.jsonl")] for at in (made, tmp_path / "two"))
    for one, other in zip(mine, others, strict=True):
        assert one == pytest.approx(other, abs=5e-3)
    assert done.stderr.count("read 100, used 100, rejected 0; learning") == 1, "one process speaks"


def test_a_missing_score_moves_nothing() -> None:
    said = torch.zeros(3, 2, requires_grad=True)
    labels = torch.tensor([[1.0, MISSING], [MISSING, 2.0], [3.0, MISSING]])
    loss = masked_loss({"logits": said}, labels)
    assert loss.item() == pytest.approx((1 + 4 + 9) / 3)
    loss.backward()
    assert ((said.grad != 0) == (labels != MISSING)).all()


def test_missing_dimensions_are_masked_and_never_zero(place: Path, plan: Plan, tmp_path: Path) -> None:
    """Half the texts say 8 to 9, the others nothing: what was learned is 8 to 9, and with zeros it would be 4."""
    gaps = read(place / "train.jsonl")
    for number, line in enumerate(gaps):
        scores = {} if number % 2 else {"justice": 8 + number % 3 / 2}
        line["uplifting_analysis"] = {"wonder": number % 11, **scores}
    files = {**plan.files, "train": [write(tmp_path / "gaps.jsonl", gaps)]}
    finetune(replace(plan, files=files, output=tmp_path / "gaps", epochs=1, dimensions=["wonder", "justice"]))
    said = [line["predictions"]["justice"] for line in read(tmp_path / "gaps" / "predictions.jsonl")]
    assert min(said) > 6
    assert max(line["loss"] for line in history(tmp_path / "gaps") if "loss" in line) < 10, "a zero is far off"


# -- precision ---------------------------------------------------------------------------------------------------------


def test_the_head_is_exact_on_a_half_precise_base(plan: Plan, tmp_path: Path) -> None:
    base = check_model(plan, find_machine(cpu=True))
    model = build_model(base, TINY, 3, Machine(None, 0, bf16=True), seed=0)
    kinds = {name: weights.dtype for name, weights in model.named_parameters()}
    assert {kind for name, kind in kinds.items() if "score" in name or "lora_" in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if "embed_tokens" in name} == {torch.bfloat16}
    seen: list[torch.Tensor] = []
    head = model.get_submodule("base_model.model.score")
    head.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    torch.manual_seed(1)
    for name, weights in model.named_parameters():
        if "score" in name or "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    batch = collate(base.tokenizer.pad_token_id)([{"input_ids": [5, 6, 7, 8, 9]}])
    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        said = model(**batch).logits
    exact = seen[0][:, -1].float() @ head.modules_to_save["default"].weight.T
    assert said.dtype == torch.float32
    assert torch.allclose(said, exact, rtol=1e-5, atol=1e-6), "half precision would be off by a hundredth"

    model.save_pretrained(tmp_path / "checkpoint")
    document = {"dimensions": ["a", "b", "c"], "dtype": "bfloat16", "max_length": 64}
    document |= {"means": dict.fromkeys("abc", 0.0), "deviations": dict.fromkeys("abc", 1.0)}
    save_model(tmp_path / "model", tmp_path / "checkpoint", base, document, lambda _folder: None)
    again = load_model(tmp_path / "model", document)
    texts = ["satu dua tiga", "empat"]
    mine = []
    for text in texts:
        with torch.inference_mode():
            mine.append(model(**collate(0)([{"input_ids": base.tokenizer(text)["input_ids"]}])).logits[0].numpy())
    assert np.array_equal(np.vstack([again.heads([text]) for text in texts]), np.array(mine, np.float64))


def test_half_precision_and_checkpointing_learn_the_adapter(
    made: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU is trained with, on a processor: close to the exact run, and every matrix learns."""
    own = finetune_trainer._on_machine
    monkeypatch.setattr(
        finetune_trainer, "_on_machine", lambda run, fields: {**own(run, fields), "activation_checkpointing": True}
    )
    monkeypatch.setattr(room, "find_machine", lambda cpu: Machine(None, 0, bf16=cpu))
    finetune(replace(plan, output=tmp_path / "half"))
    losses, exact = ([line["loss"] for line in history(at) if "loss" in line] for at in (tmp_path / "half", made))
    assert losses == pytest.approx(exact, rel=0.05) and losses != exact
    weights = load_file(tmp_path / "half" / "model" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name)
    assert json.loads((tmp_path / "half" / "model" / "student.json").read_text())["dtype"] == "bfloat16"
    told = read(tmp_path / "half" / "predictions.jsonl")
    again = open_scorer(tmp_path / "half")
    texts = [text_of(article) for article in read(plan.files["val"][0])]
    said = again.answer(texts)[0].raw.round(4).tolist()
    assert said == [list(line["raw"].values()) for line in told if line["split"] == "val"]


# -- kills -------------------------------------------------------------------------------------------------------------

KILLS = {
    "in a step": "training_step",
    "while a checkpoint is written": "_save_rng_state",
}
KILLED = """
import os, signal, sys
from transformers import Trainer
method, at = sys.argv[1], int(sys.argv[2])
own, calls = getattr(Trainer, method), []
def dies(*given, **named):
    calls.append(1)
    if len(calls) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return own(*given, **named)
setattr(Trainer, method, dies)
from ocr_sprint.tools.finetune_qwen import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(("when", "at"), [("in a step", 11), ("while a checkpoint is written", 2)])
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    made: Path, plan: Plan, tmp_path: Path, run: Run, when: str, at: int
) -> None:
    own = words(plan, tmp_path / "killed")
    line = [sys.executable, "-c", KILLED, KILLS[when], str(at), *own]
    done = subprocess.run(line, env=QUIET, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    checkpoints = tmp_path / "killed" / "checkpoints"
    whole = sorted(checkpoints.glob("*/whole"), key=lambda path: int(path.parent.name.split("-")[1]))
    assert whole and not (tmp_path / "killed" / "model").exists()
    before = load_file(whole[-1].parent / "adapter_model.safetensors")

    code, said = run("finetune_qwen", *own)
    assert code == 0 and said.endswith("read report.html first")
    assert history(tmp_path / "killed") == history(made)
    for name in ("model/adapter_model.safetensors", "model/adapter_config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (made / name).read_bytes()
    after = load_file(tmp_path / "killed" / "model" / "adapter_model.safetensors")
    learned = [name for name in after if "lora_B" in name and not torch.equal(before[name], after[name])]
    assert learned, "the adapter goes on learning, and not only the head"
    assert not checkpoints.exists()


def test_nothing_goes_on_over_other_weights(
    place: Path, plan: Plan, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another training of the same model, of the same shape and under the same name, is another model."""
    shutil.copytree(place / "tiny", tmp_path / "base")
    own, calls = Trainer.training_step, []

    def interrupted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return own(*given, **named)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    stopped = replace(plan, model=str(tmp_path / "base"), output=tmp_path / "out", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        finetune(stopped)
    weights = load_file(tmp_path / "base" / "model.safetensors")
    other = {name: tensor * 1.001 for name, tensor in weights.items()}
    save_file(other, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    code, said = run("finetune_qwen", *words(stopped, tmp_path / "out"))
    assert code == 2 and f"holds a run over {tmp_path / 'base'} as it was: its files have changed since" in said

    save_file(weights, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    assert run("finetune_qwen", *words(stopped, tmp_path / "out"))[0] == 0
    asked = ["--model", tmp_path / "out", "--source", place / "test.jsonl", "--output", tmp_path / "said.jsonl"]
    assert run("predict", *asked)[0] == 0
    save_file(other, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    code, said = run("predict", *asked)
    assert code == 1 and f"its base model at {tmp_path / 'base'} has changed since training" in said


def test_early_stopping_counts_on_after_a_kill(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is learned, so the second and third evaluation are no better than the first."""
    monkeypatch.setattr(finetune_plan, "TINY", replace(TINY, learning_rate=0.0, patience=2))
    still = replace(plan, output=tmp_path / "still", epochs=3)
    own, calls = Trainer.training_step, []

    def interrupted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 10:  # two evaluations are done, one of them in vain
            raise KeyboardInterrupt
        return own(*given, **named)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(still)
    finetune(still)
    assert max(line["step"] for line in history(tmp_path / "still")) == 3 * 4


def test_what_was_trained_is_not_trained_again(
    made: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends while its card is written has only that to do again."""
    late, own = replace(plan, output=tmp_path / "late"), room._tell

    def interrupted(*_given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "_tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(late)
    monkeypatch.setattr(room, "_tell", own)
    monkeypatch.setattr(Trainer, "train", interrupted)
    finetune(late)
    for name in ("history.jsonl", "predictions.jsonl", "metrics.json", "model/adapter_model.safetensors"):
        assert (tmp_path / "late" / name).read_bytes() == (made / name).read_bytes()


def test_memory_that_runs_out_is_one_line(
    plan: Plan, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = Trainer.training_step, []

    def full(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return own(*given, **named)

    monkeypatch.setattr(Trainer, "training_step", full)
    code, said = run("finetune_qwen", *words(plan, tmp_path / "full"))
    assert code == 2 and said.endswith(
        "memory ran out with 8 rows at a time; give --micro-batch 4: the run goes on where it was"
    )
    assert [path.name for path in (tmp_path / "full" / "checkpoints").glob("*-*")] == ["checkpoint-4"]
    code, said = run("finetune_qwen", *words(plan, tmp_path / "full"), "--micro-batch", "4")
    assert code == 0 and history(tmp_path / "full")[-1]["step"] == 16


# -- what is written ---------------------------------------------------------------------------------------------------


def test_every_file_is_there(made: Path, place: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == [
        "README.md", "history.jsonl", "metrics.json", "model", "predictions.jsonl", "quarantine.jsonl", "report.html",
        "run.json",
    ]  # fmt: skip
    told = json.loads((made / "run.json").read_text())
    assert told["state"] == "finished" and told["command"].startswith("ocr_sprint finetune_qwen --train-file")
    assert {"torch", "transformers", "peft", "ocr_sprint"} <= set(told["versions"])
    assert [file["split"] for file in told["files"]] == ["train", "val", "test"]

    metrics = json.loads((made / "metrics.json").read_text())
    assert list(metrics["splits"]) == ["val", "test"]
    for one in metrics["splits"]["test"]["dimensions"]:
        assert one["low"] <= one["error"] <= one["high"] and {"constant", "light", "oracle", "bias"} <= set(one)
        assert one["same_third"][1] <= one["same_third"][0] <= one["same_third"][2]
        assert one["change"][1] <= one["change"][0] == pytest.approx(one["error"] - one["light"])

    lines = read(made / "predictions.jsonl")
    assert {line["split"] for line in lines} == {"val", "test"} and len(lines) == 40
    assert {line["model"] for line in lines} == {metrics["model"]} == {told["model_digest"]}

    card = (made / "README.md").read_text()
    assert card.startswith("---\nbase_model: tiny\nlibrary_name: peft\nlicense: other\n")
    assert told["files"][0]["sha256"] in card and told["command"] in card and "## Licence" in card
    page = (made / "report.html").read_text()
    assert page.count('class="plot"') == 2 and "src=" not in page.split("<script>")[0]
    config = json.loads((made / "model" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == str(place / "tiny")


def test_the_card_says_when_it_is_not_worth_it(made: Path) -> None:
    """Random weights learn nothing in two epochs."""
    metrics = json.loads((made / "metrics.json").read_text())
    assert not metrics["splits"]["test"]["beats_light"]
    card = (made / "README.md").read_text()
    assert "**It is not shown to beat the light student**" in card or "**It is worse than the light student**" in card


def test_reload_predicts_the_same(made: Path, place: Path, tmp_path: Path, run: Run) -> None:
    told = {line["id"]: line for line in read(made / "predictions.jsonl")}
    for name in ("val", "test"):
        out = tmp_path / f"{name}.jsonl"
        code, said = run("predict", "--model", made, "--source", place / f"{name}.jsonl", "--output", out)
        assert code == 0 and "20 texts, 20 with labels, 0 that the student was trained on" in said
        for line in read(out):
            assert line == {key: value for key, value in told[line["id"]].items() if key != "split"}


def test_own_texts_are_known_and_not_called_unseen(made: Path, place: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "own.jsonl"
    code, said = run("predict", "--model", made / "model", "--source", place / "train.jsonl", "--output", out)
    assert code == 0 and f"{TRAIN} that the student was trained on (their lines say `oof`: false)" in said
    assert not any(line["oof"] for line in read(out))


def test_curves_are_drawn_and_used(made: Path, place: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(made, tmp_path / "model")
    model, out = tmp_path / "model", tmp_path / "out.jsonl"
    more = [{**each, "id": f"more-{each['id']}"} for each in fictitious_articles(60, seed=5, words=8)]
    source = write(tmp_path / "more.jsonl", more)
    assert run("predict", "--model", model, "--source", source, "--output", out)[0] == 0
    code, said = run("calibrate_student", "--model", model, "--predictions", out)
    assert code == 0 and str(model / "model" / "calibration.json") in said, said
    code, said = run("calibrate_student", "--model", model, "--predictions", out)
    assert code == 2 and "was not written by the student" in said
    assert run("predict", "--model", model, "--source", source, "--output", out)[0] == 0
    assert open_scorer(model).digest == read(out)[0]["model"] != open_scorer(made).digest
    curves = json.loads((model / "model" / "calibration.json").read_text())["curves"]
    assert curves and not any(line["oof"] for line in read(out))  # the curves had their labels
    assert run("predict", "--model", model, "--source", place / "test.jsonl", "--output", out)[0] == 0
    assert all(line["oof"] for line in read(out))


@pytest.mark.parametrize("key", ["files", "means", "dimensions", "uncertainty_ratio"])
def test_a_student_json_that_is_not_whole_is_one_line(
    made: Path, place: Path, tmp_path: Path, run: Run, key: str
) -> None:
    shutil.copytree(made / "model", tmp_path / "model")
    path = tmp_path / "model" / "student.json"
    document = json.loads(path.read_text())
    del document[key]
    path.write_text(json.dumps(document))
    words = ["--model", tmp_path / "model", "--source", place / "test.jsonl", "--output", tmp_path / "o"]
    code, said = run("predict", *words)
    assert code == 1 and said.endswith("student.json: is not whole; restore it or run finetune_qwen again")


def test_an_adapter_that_is_gone_is_one_line(made: Path, place: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(made, tmp_path / "run")
    (tmp_path / "run" / "model" / "adapter_config.json").unlink()
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        code, said = run("predict", "--model", folder, "--source", place / "test.jsonl", "--output", tmp_path / "o")
        assert code == 1 and "model: has no adapter_config.json; restore it or run finetune_qwen again" in said


def test_a_changed_file_is_not_loaded(made: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(made, tmp_path / "model")
    with (tmp_path / "model" / "model" / "adapter_model.safetensors").open("ab") as file:
        file.write(b"x")
    code, said = run(
        "predict", "--model", tmp_path / "model", "--source", made / "history.jsonl", "--output", tmp_path / "o"
    )
    assert code == 1 and "adapter_model.safetensors: has changed since the model was saved" in said


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_nothing_is_cut_in_silence(plan: Plan, tmp_path: Path, run: Run) -> None:
    own = words(replace(plan, epochs=1), tmp_path / "cut", "--max-length", 4)
    code, said = run("finetune_qwen", *own)
    assert (
        code == 2 and "100% of the texts are longer than 4 tokens and would be cut (60 of 60 in train, 20 of 20" in said
    )
    assert not (tmp_path / "cut" / "history.jsonl").exists()
    assert run("finetune_qwen", *own, "--truncate")[0] == 0
    assert "Cut at the end: 60 of train, 20 of val, 20 of test." in (tmp_path / "cut" / "README.md").read_text()
    source, output = plan.files["test"][0], tmp_path / "out.jsonl"
    code, said = run("predict", "--model", tmp_path / "cut", "--source", source, "--output", output)
    assert (code, said) == (0, "20 of the texts are longer than the student reads; it saw their beginnings")


def test_the_texts_that_chose_the_weights_prove_nothing(place: Path, plan: Plan, tmp_path: Path) -> None:
    """Without test texts the summary says so; and a handful of texts shows nothing at all."""
    val = write(tmp_path / "val.jsonl", read(place / "val.jsonl")[:5])
    files = {"train": plan.files["train"], "val": [val]}
    said = finetune(replace(plan, files=files, output=tmp_path / "out", epochs=1)).summary
    assert "It is not shown to beat the light student" in said and "These texts also chose the weights" in said
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["splits"]["val"]
    assert figures["beats_light"] is False and figures["change_from_light"][1:] == [None, None]


def seven_billion(folder: Path) -> None:
    """The description of a Qwen of 7 billion weights, without the weights."""
    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    Qwen2Config(vocab_size=152064, num_key_value_heads=4, **sizes).save_pretrained(folder)
    tiny_tokenizer(["satu dua"]).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"\0" * 1000)


def strange_head(folder: Path) -> None:
    tiny_folder(folder, ["satu dua"], width=8, layers=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "lfm2"}))


@pytest.mark.parametrize(
    ("make", "code", "text"),
    [
        (lambda _folder: None, 2, "is no model's folder: it has no config.json"),
        (seven_billion, 2, "has 7.1 billion weights, and no GPU is used here"),
        (strange_head, 1, "models of the type 'lfm2' have no head for regression"),
    ],
    ids=["no model", "too large", "no head"],
)
def test_a_model_that_will_not_do_is_one_line(
    plan: Plan, tmp_path: Path, run: Run, make: Callable[[Path], None], code: int, text: str
) -> None:
    (tmp_path / "model").mkdir()
    make(tmp_path / "model")
    found = run("finetune_qwen", *words(replace(plan, model=str(tmp_path / "model")), tmp_path / "out"))
    assert found[0] == code and text in found[1]
    assert not (tmp_path / "out").exists()


def broken_off(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def of_another_size(folder: Path) -> None:
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "hidden_size": 32}))


def incomplete(folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    del held["model.layers.0.mlp.up_proj.weight"]
    save_file(held, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (broken_off, "its weights cannot be loaded as config.json describes them"),
        (of_another_size, "its weights cannot be loaded as config.json describes them"),
        (incomplete, "its files lack 1 weights, such as model.layers.0.mlp.up_proj.weight"),
    ],
    ids=["broken off", "of another size", "incomplete"],
)
def test_weights_that_are_not_all_there_are_one_line(
    place: Path, plan: Plan, tmp_path: Path, run: Run, spoil: Callable[[Path], None], text: str
) -> None:
    shutil.copytree(place / "tiny", tmp_path / "model")
    spoil(tmp_path / "model")
    found = run("finetune_qwen", *words(replace(plan, model=str(tmp_path / "model")), tmp_path / "out"))
    assert found[0] == 1 and text in found[1]


def test_tied_weights_are_not_missed(tmp_path: Path) -> None:
    model = tiny_qwen(800, width=8, layers=1)
    Qwen2ForCausalLM(Qwen2Config(**{**model.config.to_dict(), "tie_word_embeddings": True})).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert load_weights(str(tmp_path), "sft").lm_head.weight.shape == (800, 8)


def test_only_the_first_of_several_cards_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several in one process would be `DataParallel`, which shares a step out otherwise."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for shown, used in (("2,3", "2"), ("1", "1"), ("", ""), (None, "0")):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if shown is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        find_machine(cpu=True)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == used
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    find_machine(cpu=True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


@pytest.mark.parametrize(("generation", "computes"), [(7, False), (8, True)])
def test_bfloat16_that_a_card_emulates_is_not_taken(
    generation: int, computes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = SimpleNamespace(name="a card", total_memory=2**34, major=generation)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: card)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _device: True)
    assert find_machine() == Machine("a card", 2**34, computes)


def test_a_run_on_the_processor_leaves_a_card_alone_to_its_end(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--config tiny` trains on the processor; so must what it measures."""

    def machine(cpu: bool = False) -> Machine:
        assert cpu, "a card was looked for"
        return find_machine(cpu)

    monkeypatch.setattr("ocr_sprint.training.finetuned.find_machine", machine)
    finetune(replace(plan, output=tmp_path / "out", epochs=1))
    assert (tmp_path / "out" / "predictions.jsonl").is_file()


def test_what_another_has_put_there_is_not_written_over(place: Path, plan: Plan, tmp_path: Path, run: Run) -> None:
    """`--model ./model --output .` would have replaced the base model by its own adapter."""
    shutil.copytree(place / "tiny", tmp_path / "model")
    (tmp_path / "old" / "checkpoints" / "checkpoint-500").mkdir(parents=True)
    for output, what in ((tmp_path, "holds model"), (tmp_path / "model", "holds config.json"), (tmp_path / "old", "")):
        before = sorted(tmp_path.rglob("*"))
        code, said = run("finetune_qwen", *words(replace(plan, model=str(tmp_path / "model")), output))
        assert code == 2 and what in said and "it is of something else" in said
        assert sorted(tmp_path.rglob("*")) == before


def test_texts_that_do_not_fit_at_once_are_asked_about_by_halves(
    made: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(made / "model", json.loads((made / "model" / "student.json").read_text()))
    texts = [article["text"] for article in read(place / "test.jsonl")]
    wanted, own, room = model.heads(texts), type(model)._ask, 3

    def ask(self: Any, rows: Sequence[Any]) -> Any:
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return own(self, rows)

    monkeypatch.setattr(type(model), "_ask", ask)
    np.testing.assert_allclose(model.heads(texts), wanted, atol=1e-5)
    room = 0
    with pytest.raises(UsageError, match="memory ran out at one text"):
        model.heads(texts)


def test_a_tokenizer_that_cannot_fill_up_rows_is_one_line(
    plan: Plan, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tiny_tokenizer(["satu dua"])
    bare.eos_token = bare.pad_token = None
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda _name: bare)
    code, said = run("finetune_qwen", *words(plan, tmp_path / "out"))
    assert code == 1 and "its tokenizer has no pad_token and no eos_token" in said
    bare.eos_token = "<|im_end|>"
    assert check_model(plan, find_machine(cpu=True)).tokenizer.pad_token == "<|im_end|>"


def test_sft_needs_a_chat_template(plan: Plan, tmp_path: Path, run: Run) -> None:
    tiny_qwen(800, width=8, layers=1).save_pretrained(tmp_path / "bare")
    tiny_tokenizer(["satu dua"], template=None).save_pretrained(tmp_path / "bare")
    own = words(replace(plan, model=str(tmp_path / "bare")), tmp_path / "out", "--mode", "sft")
    code, said = run("finetune_qwen", *own)
    assert code == 1 and "its tokenizer has no chat template" in said


def test_files_that_will_not_do_are_one_line(place: Path, plan: Plan, tmp_path: Path, run: Run) -> None:
    train, output = place / "train.jsonl", tmp_path / "out"
    few = write(tmp_path / "few.jsonl", read(train)[:10])
    sparse = read(train)
    for line in sparse[8:]:
        line["uplifting_analysis"].pop("justice", None)
    gaps = write(tmp_path / "gaps.jsonl", sparse)
    cases = [
        ({"test": [train]}, (), 1, "is in train and in test"),
        ({"train": [few]}, (), 1, "10 labelled texts; a student needs 20 at least"),
        ({"train": [gaps]}, ("--dimensions", "justice"), 1, "8 labelled texts; a student needs 20 at least"),
        ({"train": [gaps]}, ("--dimensions", "wonder,justice"), 1, "justice is known of 8 texts"),
        ({}, ("--dimensions", "agncy"), 2, "agncy"),
        ({}, ("--micro-batch", "3"), 2, "--micro-batch 3"),
        ({}, ("--seed", "-1"), 2, "--seed -1: give 0 or more"),
        ({}, ("--oracle", train), 1, "give the .json of calibrate_oracle"),
    ]
    for files, more, code, text in cases:
        found = run("finetune_qwen", *words(replace(plan, files={**plan.files, **files}), output, *more))
        assert found[0] == code and text in found[1], found
    assert not (output / "history.jsonl").exists()


def test_the_same_command_again_does_nothing_and_another_is_refused(made: Path, plan: Plan, run: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    code, said = run("finetune_qwen", *words(plan, made))
    assert code == 0 and said == f"{made}: this very run is finished; nothing was done"
    code, said = run("finetune_qwen", *words(plan, made, "--seed", 1))
    assert code == 2 and "holds a run of other files or settings" in said
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()} == before


def test_without_torch_it_is_one_line(plan: Plan, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_model, "find_spec", lambda name: None if name == "torch" else object())
    code, said = run("finetune_qwen", *words(plan, tmp_path / "out"))
    assert code == 2 and "fine-tuning needs torch: run `make install-train`" in said


def test_the_oracles_own_error_stands_beside(plan: Plan, tmp_path: Path) -> None:
    """From the file that calibrate_oracle writes; the run itself does not depend on it."""
    deviation = {"agency": {"value": 1.0, "low": 0.8, "high": 1.2}}
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"calibration": 1, "repeats": [{"oracle": "flash", "deviation": deviation}]}))
    prepared = room.prepare(replace(plan, oracle=path, output=tmp_path / "out"), main=True)
    assert prepared.oracle == {"agency": pytest.approx(0.798, abs=1e-3)}
