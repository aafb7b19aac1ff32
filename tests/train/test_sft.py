"""Fine-tuning of answers: nothing is cut, a kill loses nothing, and what is measured is what was saved."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from convert_samples import fill, in_schema_order
from tiny_models import tiny_qwen, tiny_tokenizer
from transformers import AutoTokenizer
from trl import SFTTrainer

from ocr_sprint.core.errors import DataError
from ocr_sprint.review.convert import Conversion, convert
from ocr_sprint.review.convert_examples import Choice
from ocr_sprint.review.convert_splits import Division
from ocr_sprint.review.store import open_store
from ocr_sprint.tools.cli import main
from ocr_sprint.training.chat import tokens_of_row
from ocr_sprint.training.finetune import finetune
from ocr_sprint.training.finetune_plan import Plan
from ocr_sprint.training.sft_model import load_answerer

QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
OUTPUTS = {
    *("README.md", "history.jsonl", "metrics.json", "predictions.jsonl", "report.html", "run.json"),
    *("model/README.md", "model/adapter_config.json", "model/adapter_model.safetensors", "model/student.json"),
    *("model/chat_template.jinja", "model/tokenizer.json", "model/tokenizer_config.json"),
}


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def figures(folder):
    """Every figure of every step, in order."""
    return [
        (line["step"], key, line[key])
        for line in read(folder / "history.jsonl")
        for key in ("loss", "grad_norm", "eval_loss")
        if key in line
    ]


def assert_same_figures(folder, other):
    """The steps of two runs, to what fp32 leaves."""
    mine, theirs = figures(folder), figures(other)
    assert [line[:2] for line in mine] == [line[:2] for line in theirs]
    assert [line[2] for line in mine] == pytest.approx([line[2] for line in theirs], rel=1e-5)


def tiny(folder, texts, template=True):
    """A model and a tokenizer for these texts."""
    tokenizer = tiny_tokenizer(texts) if template else tiny_tokenizer(texts, template=None)
    tiny_qwen(len(tokenizer), width=16, layers=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Twenty letters in a folder of training data, and a tiny Qwen."""
    place = tmp_path_factory.mktemp("sft")
    with open_store(f"sqlite:///{place}/store.db") as store:
        fill(store, 20)
        conversion = Conversion(choice=Choice("header"), division=Division(0.6, 0.2, 0.2))
        convert(store, place / "training", conversion, in_schema_order)
    tiny(place / "tiny", [line for path in place.rglob("train.jsonl") for line in path.read_text().splitlines()])
    return place


@pytest.fixture(scope="module")
def plan(place):
    files = {name: [place / "training" / "prompt_completion" / f"{name}.jsonl"] for name in ("train", "val", "test")}
    return Plan(files, str(place / "tiny"), place / "made", "sft", "tiny", epochs=2, command=("ocr_sprint", "go on"))


@pytest.fixture(scope="module")
def made(plan):
    """A run that nobody disturbed; nobody may change it."""
    finetune(plan)
    return plan.output


def words(plan, output):
    files = [word for name, paths in plan.files.items() for word in (f"--{name}-file", *paths)]
    own = ["--mode", "sft", "--model", plan.model, "--config", "tiny", "--epochs", plan.epochs, "--output", output]
    return [str(word) for word in (*files, *own)]


def test_every_output_is_written_and_says_what_it_was_made_of(made, plan):
    assert {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()} == OUTPUTS
    run = json.loads((made / "run.json").read_text())
    assert (run["state"], run["mode"], run["command"]) == ("finished", "sft", "ocr_sprint 'go on'")
    card = (made / "README.md").read_text()
    assert card.startswith("---\nbase_model: tiny\n") and "ocr_sprint 'go on'" in card
    for file in run["files"]:
        assert file["sha256"] in card
    assert json.loads((made / "model" / "student.json").read_text())["system_prompt"] in card
    assert "plotly" in (made / "report.html").read_text()
    said = read(made / "predictions.jsonl")
    counts = {name: len(read(paths[0])) for name, paths in plan.files.items()}
    assert [line["split"] for line in said] == ["val"] * counts["val"] + ["test"] * counts["test"]


def test_the_loss_of_the_answers_goes_down(made):
    losses = [value for _, key, value in figures(made) if key == "eval_loss"]
    assert len(losses) >= 3 and losses == sorted(losses, reverse=True) and losses[0] > losses[-1]


def test_answers_are_measured_beside_what_the_pipeline_said(made, plan):
    metrics = json.loads((made / "metrics.json").read_text())["splits"]
    first = {
        row["id"]: row["first_output"] for row in read(plan.files["test"][0].parent.parent / "first_outputs.jsonl")
    }
    said = read(made / "predictions.jsonl")
    assert {line["id"] for line in said} == {row["id"] for name in ("val", "test") for row in read(plan.files[name][0])}
    for line in said:
        spoiled = first[line["id"]] != line["answer"]
        assert line["fields"] - line["identity_right"] == spoiled  # of each spoiled letter, the subject
    for name, measures in metrics.items():
        own = [line for line in said if line["split"] == name]
        assert measures["letters"] == len(own)
        assert measures["identity_field_acc"]["hits"] == sum(line["identity_right"] for line in own)
        assert measures["fix_recall"]["total"] == sum(line["fields"] - line["identity_right"] for line in own)
        assert measures["json_valid"]["hits"] == sum(line["json_valid"] for line in own)
        assert 0 <= measures["field_acc"]["low"] <= measures["field_acc"]["value"] <= measures["field_acc"]["high"] <= 1
        assert "header.perihal" in measures["fields"]


def test_the_saved_folder_says_again_what_was_measured(made, plan):
    answerer = load_answerer(made / "model")
    said = {line["id"]: line for line in read(made / "predictions.jsonl")}
    for name in ("val", "test"):
        rows = read(plan.files[name][0])
        tokens = [tokens_of_row(answerer.tokenizer, row["prompt"], row["completion"]) for row in rows]
        again = answerer.answer([row.tokens[: row.start] for row in tokens])
        assert [(one.text, one.ended) for one in again] == [
            (said[row["id"]]["said"], said[row["id"]]["ended"]) for row in rows
        ]


def test_a_model_that_answers_gives_no_scores(made, tmp_path, capsys):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"id":"1","title":"A","content":"B"}\n')
    words = ["predict", "--model", str(made), "--source", str(texts), "--output", str(tmp_path / "out.jsonl")]
    assert main(words) == 2
    assert "holds a model of --mode sft, which gives answers and no scores" in capsys.readouterr().err


def test_messages_teach_the_same(made, plan, tmp_path):
    files = {
        name: [Path(str(path).replace("prompt_completion", "messages")) for path in paths]
        for name, paths in plan.files.items()
    }
    finetune(replace(plan, files=files, output=tmp_path / "out"))
    assert figures(tmp_path / "out") == figures(made)


def test_the_loss_is_the_same_however_a_step_is_shared_out(made, plan, tmp_path):
    finetune(replace(plan, output=tmp_path / "out", micro_batch=2))
    assert_same_figures(tmp_path / "out", made)


TWO = """
import os, sys
from pathlib import Path
import torch
from ocr_sprint.training import finetune_trainer
from ocr_sprint.training.sft_model import Answerer
{first}
own = Answerer.answer
def answer(self, questions, *given, **named):
    group = torch.distributed.distributed_c10d._get_default_group()
    waits = group._get_backend(torch.device("cpu")).options._timeout
    Path(sys.argv[1], f"of {{group.size()}}, rank {{group.rank()}}: {{len(questions)}}").write_text(str(waits))
    return own(self, questions, *given, **named)
Answerer.answer = answer
from ocr_sprint.tools.cli import main
sys.exit(main(["finetune_qwen", *sys.argv[2:]]))
"""


def in_two_processes(place, *words, first=""):
    """Start the command as torchrun does on a machine with two cards; `first` is run in each process before it."""
    (place / "told").mkdir()
    (place / "two.py").write_text(TWO.format(first=first))
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "two.py", "told"]
    return subprocess.run([*line, *words], env=QUIET, cwd=place, capture_output=True, text=True, check=False)


def test_two_processes_learn_and_answer_what_one_does(made, plan, tmp_path):
    """Twelve letters are one step and a half, and three to validate by are no multiple of two."""
    assert [len(read(plan.files[name][0])) for name in ("train", "val")] == [12, 3]
    done = in_two_processes(tmp_path, *words(plan, tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_figures(tmp_path / "out", made)
    assert done.stderr.count("none is cut") == 1, "one process speaks"
    mine, one = (
        [(line["id"], line["said"]) for line in read(at / "predictions.jsonl")] for at in (tmp_path / "out", made)
    )
    assert mine == one
    shares = {path.name: path.read_text() for path in (tmp_path / "told").iterdir()}
    counts = {
        "of 2, rank 0: 2",
        "of 2, rank 1: 1",
        "of 2, rank 0: 3",
        "of 2, rank 1: 2",
    }  # of three, and of five letters
    assert shares == dict.fromkeys(counts, "1 day, 0:00:00"), "who has answered waits longer than half an hour"
    assert not list((tmp_path / "out" / "checkpoints").glob("*"))


OWN_FOLDER = """
finetune_trainer._LOOKS = 2
os.makedirs(os.environ["RANK"])
os.chdir(os.environ["RANK"])
sys.argv[1] = "../told"
"""
OTHER_WEIGHTS = """
if os.environ["RANK"] == "1":
    from ocr_sprint.training import finetune_run
    finetune_run.data_files = lambda plan: [{"split": "train", "file": "train.jsonl", "sha256": "00" * 32}]
"""


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (OWN_FOLDER, "out: is not one folder for all processes; every node must see the same --output folder"),
        (OTHER_WEIGHTS, "out: its processes have other files, or another model, than each other"),
    ],
    ids=["folders", "files"],
)
def test_nodes_that_do_not_share_are_told_before_anything_is_trained(plan, tmp_path, first, problem):
    done = in_two_processes(tmp_path, *words(plan, "out"), first=first)
    assert done.returncode != 0 and problem in done.stderr, done.stderr[-3000:]
    assert not list(tmp_path.rglob("history.jsonl")) and not list(tmp_path.rglob("node-*"))


KILLED = """
import os, signal, sys
from ocr_sprint.tools.cli import main
{where}
main(["finetune_qwen", *sys.argv[1:]])
"""
WHERE = {
    "between checkpoints": """
from transformers import Trainer
own, calls = Trainer.training_step, []
def step(*given, **named):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return own(*given, **named)
Trainer.training_step = step
""",
    "while it is asked": """
from ocr_sprint.training.sft_model import Answerer
Answerer.answer = lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL)
""",
}


@pytest.mark.parametrize("where", WHERE)
def test_a_killed_run_goes_on_to_the_same_end(made, plan, tmp_path, where):
    output = tmp_path / "killed"
    line = [sys.executable, "-c", KILLED.format(where=WHERE[where]), *words(plan, output)]
    done = subprocess.run(line, env=QUIET, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert list((output / "checkpoints").glob("*/whole")) and not (output / "predictions.jsonl").exists()
    finetune(replace(plan, output=output))
    assert read(output / "history.jsonl") == read(made / "history.jsonl")
    for name in ("model/adapter_model.safetensors", "predictions.jsonl", "metrics.json"):
        assert (output / name).read_bytes() == (made / name).read_bytes()
    assert not (output / "checkpoints").exists()


def told(capsys, plan, output, *more):
    """What the command says in its last line, and its exit code."""
    capsys.readouterr()
    code = main(["finetune_qwen", *words(plan, output), *more])
    return code, capsys.readouterr().err.strip().splitlines()[-1]


def test_a_finished_run_is_left_alone(made, plan):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert main(["finetune_qwen", *words(plan, made)]) == 0
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_an_answer_that_would_be_cut_ends_it_before_a_weight_is_loaded(plan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ocr_sprint.training.sft.build_causal", None)
    code, line = told(capsys, plan, tmp_path / "out", "--max-length", "300")
    first = read(plan.files["train"][0])[0]["id"]
    assert code == 1 and f"{plan.files['train'][0]}, line 1, id {first}: its " in line
    assert "would be cut: --max-length is 300; raise it" in line


def test_a_model_that_reads_too_little_is_told(plan, tmp_path, capsys):
    tiny(tmp_path / "short", ["SURAT PERINTAH"])
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    (tmp_path / "short" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 128}))
    code, line = told(capsys, replace(plan, model=str(tmp_path / "short")), tmp_path / "out")
    assert code == 1 and "the model reads 128 tokens; raise it" in line


def test_a_tokenizer_without_a_chat_template_is_told(plan, tmp_path, capsys):
    tiny(tmp_path / "base", ["SURAT PERINTAH"], template=False)
    code, line = told(capsys, replace(plan, model=str(tmp_path / "base")), tmp_path / "out")
    assert code == 1 and "its tokenizer has no chat template; take an instruct model" in line


def test_an_end_token_that_no_turn_has_is_told(plan, tmp_path, capsys):
    tiny(tmp_path / "base", ["SURAT PERINTAH"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path / "base")
    code, line = told(capsys, replace(plan, model=str(tmp_path / "base")), tmp_path / "out")
    assert code == 1 and "its answer has no end token after the chat template" in line


def test_a_letter_of_the_test_set_among_the_training_letters_is_told(plan, tmp_path, capsys):
    files = {**plan.files, "val": plan.files["train"]}
    code, line = told(capsys, replace(plan, files=files), tmp_path / "out")
    assert code == 1 and "it leaks: " in line and "line 1, id " in line


@pytest.mark.parametrize(
    ("more", "problem"), [(["--truncate"], "--truncate"), (["--dimensions", "agency"], "--dimensions")]
)
def test_what_belongs_to_scores_is_refused(plan, tmp_path, capsys, more, problem):
    code, line = told(capsys, plan, tmp_path / "out", *more)
    assert code == 2 and f"{problem} belongs to scores and not to --mode sft" in line


def test_files_of_scores_are_told_from_letters(plan, tmp_path, capsys):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"id":"1","title":"A","content":"B","analysis":{"agency":3}}\n')
    code, line = told(capsys, replace(plan, files={**plan.files, "train": [path]}), tmp_path / "out")
    assert code == 1 and f"{path}, line 1, id 1: prompt is no list of turns" in line


def test_a_trainer_that_cuts_is_caught(plan, tmp_path, monkeypatch):
    own = SFTTrainer._prepare_dataset

    def cutting(self, dataset, *given, **named):
        return own(self, dataset, *given, **named).map(
            lambda row: {key: row[key][:50] for key in ("input_ids", "labels")}
        )

    monkeypatch.setattr(SFTTrainer, "_prepare_dataset", cutting)
    with pytest.raises(DataError, match="TRL changed row 1"):
        finetune(replace(plan, output=tmp_path / "out"))
