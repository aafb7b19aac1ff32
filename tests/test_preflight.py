"""Whether a folder of training data reaches a model whole: each thing that can go wrong is one line with its place."""

import json
import re
import subprocess
import sys

import datasets
import pytest
import yaml
from convert_samples import fill, in_schema_order

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.files import file_sha256
from ocr_sprint.documents.fiction import fictitious
from ocr_sprint.documents.letter import result_data
from ocr_sprint.review.convert import Conversion, convert
from ocr_sprint.review.convert_examples import Choice
from ocr_sprint.review.convert_formats import FORMATS
from ocr_sprint.review.convert_splits import Division
from ocr_sprint.review.preflight import Measured, preflight
from ocr_sprint.review.store import open_store
from ocr_sprint.tools.preflight import main

datasets.disable_progress_bars()

# What Axolotl 0.19's own schema (AxolotlInputConfig) knows of what we write; bench/trainers.py asks that schema itself.
AXOLOTL = {
    "base_model": str,
    "datasets": list,
    "test_datasets": list,
    "chat_template": str,
    "train_on_inputs": bool,
    "sequence_len": int,
    "excess_length_strategy": str,
    "adapter": str,
    "lora_r": int,
    "lora_alpha": int,
    "lora_dropout": float,
    "lora_target_linear": bool,
    "num_epochs": int,
    "micro_batch_size": int,
    "gradient_accumulation_steps": int,
    "optimizer": str,
    "learning_rate": float,
    "lr_scheduler": str,
    "warmup_ratio": float,
    "bf16": str,
    "gradient_checkpointing": bool,
    "save_steps": float,
    "eval_steps": float,
    "output_dir": str,
    "seed": int,
}


def words(prompt, completion):
    """A tokenizer that takes every word for a token, and one for the end of a turn."""
    tokens = [len(turn["content"].split()) + 1 for turn in (*prompt, *completion)]
    return Measured(sum(tokens), tokens[-1], ends=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Twenty letters in every format."""
    place = tmp_path_factory.mktemp("preflight")
    with open_store(f"sqlite:///{place}/store.db") as store:
        fill(store, 20)
        conversion = Conversion(tuple(FORMATS), Choice("header"), division=Division(0.6, 0.2, 0.2))
        convert(store, place / "training", conversion, in_schema_order)
    return place / "training"


@pytest.fixture
def folder(whole, tmp_path):
    """A copy that may be spoiled."""
    for path in whole.rglob("*"):
        if path.is_file():
            (tmp_path / path.relative_to(whole)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path.relative_to(whole)).write_bytes(path.read_bytes())
    return tmp_path


def lines(path):
    return path.read_text().splitlines(keepends=True)


def test_what_convert_wrote_is_whole(whole):
    found = preflight(whole, words)
    assert sum(rows for path, rows in found.rows.items() if path.startswith("prompt_completion/")) == 20
    assert len(found.rows) == 3 * 4 and found.longest > 20
    assert found.room == yaml.safe_load((whole / "axolotl.yml").read_text())["sequence_len"]
    assert preflight(whole).longest is None


def dropped(rows):
    return [rows[0], *rows[2:]]


def last_dropped(rows):
    return rows[:-1]


def torn(rows):
    return [*rows[:-1], rows[-1][:40]]


def doubled(rows):
    return [rows[0], *rows]


def number(rows):
    row = json.loads(rows[1])
    row["prompt"][1]["content"] = 7
    return [rows[0], json.dumps(row) + "\n", *rows[2:]]


def empty(rows):
    row = json.loads(rows[1])
    row["completion"][0]["content"] = " "
    return [rows[0], json.dumps(row) + "\n", *rows[2:]]


def cut(rows):
    row = json.loads(rows[1])
    row["completion"][0]["content"] = row["completion"][0]["content"][:-5]
    return [rows[0], json.dumps(row) + "\n", *rows[2:]]


def sharegpt(rows):
    row = json.loads(rows[1])
    row["prompt"] = [{"from": turn["role"], "value": turn["content"]} for turn in row["prompt"]]
    return [rows[0], json.dumps(row) + "\n", *rows[2:]]


def answerless(rows):
    row = json.loads(rows[1])
    row["completion"][0]["role"] = "user"
    return [rows[0], json.dumps(row) + "\n", *rows[2:]]


@pytest.mark.parametrize(
    ("spoil", "line", "problem"),
    [
        (dropped, 2, "a row was dropped"),
        (last_dropped, None, "the row is missing"),
        (torn, None, "is no JSON object with an id"),
        (doubled, 2, "a row was dropped, added or moved"),
        (number, 2, "prompt has the content 7, which is no text"),
        (empty, 2, "completion has a turn without content"),
        (cut, 2, "not a JSON value"),
        (sharegpt, 2, "where a turn has role and content"),
        (answerless, 2, "its turns are system, user, user"),
    ],
)
def test_what_was_spoiled_is_named_with_file_row_and_id(folder, spoil, line, problem):
    path = folder / "prompt_completion" / "train.jsonl"
    rows = lines(path)
    path.write_text("".join(spoil(rows)))
    place = line or len(rows)
    due = json.loads(rows[place - 1])["id"]
    with pytest.raises(DataError) as error:
        preflight(folder)
    told = str(error.value)
    assert told.startswith(f"{path}, line {place}, id ") and problem in told and due in told
    assert "\n" not in told


def test_an_answer_that_would_be_cut_or_never_ends_is_named(folder):
    path = folder / "prompt_completion" / "train.jsonl"
    rows = [json.loads(line) for line in lines(path)]
    tokens = [words(row["prompt"], row["completion"]).tokens for row in rows]
    room = max(tokens) - 1
    place = next(at for at, count in enumerate(tokens) if count > room)
    with pytest.raises(DataError) as error:
        preflight(folder, words, room)
    assert str(error.value).startswith(f"{path}, line {place + 1}, id {rows[place]['id']}: its {room + 1} tokens")
    assert "the last 1 of its answer's" in str(error.value)
    assert preflight(folder, words, 10 * room).room == 10 * room
    with pytest.raises(DataError, match=r"line 1, id \S+: its answer has no end token"):
        preflight(folder, lambda *turns: words(*turns)._replace(ends=False))


@pytest.mark.parametrize(
    ("name", "key"),
    [("trl_sft.yaml", "max_length: "), ("axolotl.yml", "sequence_len: "), ("unsloth_train.py", "TOKENS = ")],
)
def test_the_folders_own_limits_hold(folder, name, key):
    text = (folder / name).read_text()
    found = re.search(rf"^{key}\w+", text, re.MULTILINE)
    (folder / name).write_text(text.replace(found[0], f"{key}20"))
    with pytest.raises(
        DataError, match=f"would be cut: {re.escape(name)} has {key.split(':')[0].split()[0]} 20; raise it"
    ):
        preflight(folder, words)


def test_a_group_on_two_sides_is_named(folder):
    path = folder / "groups.jsonl"
    sides = [json.loads(line) for line in lines(path)]
    one, other = sides[0], next(side for side in sides if side["split"] != sides[0]["split"])
    other["group"] = one["group"]
    path.write_text("".join(json.dumps(side) + "\n" for side in sides))
    with pytest.raises(DataError, match=f"groups.jsonl, line .*, id {other['id']}: the group of .* leaks"):
        preflight(folder)


def test_a_letter_that_was_moved_is_found_though_everything_says_it_belongs_there(folder):
    # Whoever moves a letter by hand and mends groups.jsonl and the manifest too is betrayed by its text.
    train, test = (folder / "prompt_completion" / f"{split}.jsonl" for split in ("train", "test"))
    copy = json.loads(lines(train)[0])
    copy["id"] = "another-scan"
    test.write_text(test.read_text() + json.dumps(copy) + "\n")
    groups = folder / "groups.jsonl"
    groups.write_text(groups.read_text() + '{"id":"another-scan","split":"test","group":"another-scan"}\n')
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [file for file in manifest["files"] if file["format"] == "prompt_completion"]
    for file in manifest["files"]:
        file["rows"] += file["split"] == "test"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"id another-scan: it leaks: .* in train has the same text"):
        preflight(folder)


def rewritten(folder, form, change):
    """Change rows, given with their split and place, and the manifest too."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["format"] == form:
            rows = [json.loads(line) for line in lines(folder / file["path"])]
            for place, row in enumerate(rows):
                change(file["split"], place, row)
            (folder / file["path"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
            file["sha256"] = file_sha256(folder / file["path"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_an_answer_that_stands_on_two_sides_is_found_though_nothing_else_is_shared(folder):
    """As in folders of a `convert` that knew letters by text and order number alone."""
    header = result_data(fictitious(99))["header"] | {"tanggal": None}

    def same(split, place, row):
        if place == 0 and split in ("train", "test"):
            row["completion"][0]["content"] = json.dumps({"header": header})

    rewritten(folder, "prompt_completion", same)
    with pytest.raises(DataError, match=r"test.jsonl, line 1, id .*: it leaks: .* in train has the same answer"):
        preflight(folder)


def test_an_answer_that_says_little_is_no_leak(folder):
    def little(_split, _place, row):
        row["completion"][0]["content"] = json.dumps({"header": {"perihal": "Patroli", "satuan": None}})

    rewritten(folder, "prompt_completion", little)
    assert preflight(folder).rows


def test_what_the_pipeline_misread_alike_is_no_leak(folder):
    """First outputs may be equal, as rejected answers; nothing that is learnt to say stands on two sides."""
    rejected = json.dumps({"header": result_data(fictitious(99))["header"]})
    splits = set()

    def misread(split, _place, row):
        splits.add(split)
        row["rejected"][0]["content"] = rejected

    rewritten(folder, "preference", misread)
    assert len(splits) > 1
    assert preflight(folder).rows


def test_a_change_that_is_not_wrong_in_itself_is_found_by_the_digest(folder):
    path = folder / "messages" / "val.jsonl"
    path.write_text(path.read_text().replace("SPRIN/", "SPRIN/9"))
    with pytest.raises(DataError, match=r"messages/val.jsonl.*(was changed after|it leaks)"):
        preflight(folder)


def test_other_folders_are_told_from_ours(tmp_path):
    for text in (
        None,
        "[]",
        '{"files": 3}',
        '{"files": [{}], "settings": {}}',
        '{"files": [], "settings": [1]}',
        "nothing",
    ):
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
        with pytest.raises((UsageError, DataError), match="name the folder it wrote"):
            preflight(tmp_path)


def test_the_command_says_it_in_one_line(folder, capsys):
    assert main([str(folder)]) == 0
    assert "tokens were not counted" in capsys.readouterr().out
    path = folder / "prompt_completion" / "train.jsonl"
    path.write_text("".join(lines(path)[1:]))
    assert main([str(folder)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "train.jsonl, line 1, id " in said
    assert main([str(folder), "--max-length", "0"]) == 2


def test_it_needs_no_torch(whole):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; "
        f"from ocr_sprint.tools.preflight import main; sys.exit(main([{str(whole)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_one_folder_serves_every_trainer(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        fill(store, 12)
        convert(store, tmp_path / "export", Conversion(division=Division(0.5, 0.25, 0.25)), in_schema_order)
    export = tmp_path / "export"
    assert {path.name for path in export.iterdir()} == {
        *("README.md", "manifest.json", "groups.jsonl", "first_outputs.jsonl", "left_out.jsonl"),
        *("prompt_completion", "messages"),
        *("trl_sft.yaml", "trl_sft_messages.yaml", "axolotl.yml", "unsloth_train.py"),
    }
    for form in ("prompt_completion", "messages"):
        loaded = datasets.load_dataset(str(export), form, cache_dir=str(tmp_path / "cache"))
        assert set(loaded) == {"train", "validation", "test"} and sum(part.num_rows for part in loaded.values()) == 12
        assert all(
            str(part.features).count("string") == len(re.findall("Value", str(part.features)))
            for part in loaded.values()
        )
    text = "".join(path.read_text() for path in export.rglob("*.jsonl"))
    assert '"from":' not in text and "sharegpt" not in text.lower()


def test_axolotl_gets_nothing_that_its_schema_does_not_know(whole):
    settings = yaml.safe_load((whole / "axolotl.yml").read_text())
    assert {key: type(value) for key, value in settings.items()} == AXOLOTL
    assert settings["excess_length_strategy"] == "raise" and settings["eval_steps"] == settings["save_steps"] < 1
    for part in settings["datasets"] + settings["test_datasets"]:
        assert set(part) == {
            *("path", "ds_type", "split", "type", "field_messages", "message_property_mappings"),
            *("roles_to_train", "train_on_eos"),
        }
        assert (part["ds_type"], part["split"], part["train_on_eos"]) == ("json", "train", "turn")


def test_the_first_output_of_every_letter_is_told(whole):
    told = {row["id"]: row["first_output"] for row in map(json.loads, lines(whole / "first_outputs.jsonl"))}
    pairs = [json.loads(line) for path in (whole / "preference").iterdir() for line in lines(path)]
    assert len(told) == 20 and pairs
    for pair in pairs:
        assert told[pair["id"]] == pair["rejected"][0]["content"] != pair["chosen"][0]["content"]
    right = [json.loads(line) for path in (whole / "messages").iterdir() for line in lines(path)]
    changed = {pair["id"] for pair in pairs}
    assert all(told[row["id"]] == row["messages"][-1]["content"] for row in right if row["id"] not in changed)
