"""Conversion: the same bytes on both backends, no leaks, whole folders, and rows that real libraries read."""

import hashlib
import json
import os
import random
import re
import sqlite3
import sys
from pathlib import Path

import datasets
import pytest
import yaml
from convert_samples import add_letter, fill, in_schema_order, text_of
from hypothesis import given, settings
from hypothesis import strategies as st
from review_samples import Ticking
from small_disk import on_a_small_disk

from ocr_sprint.core.canonical import encode, sha256_hex
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.documents.fiction import fictitious
from ocr_sprint.documents.letter import result_data
from ocr_sprint.review.convert import Conversion, convert
from ocr_sprint.review.convert_examples import (
    CONTROL_TOKENS,
    CORRECTOR_WARNING,
    EMPTY_HEADER,
    MISFIT,
    NO_RESULT,
    NO_TEXT,
    NOT_APPROVED,
    UNPROVED,
    UNREPLAYABLE,
    Choice,
    system_prompt,
)
from ocr_sprint.review.convert_formats import FORMATS
from ocr_sprint.review.convert_splits import SPLITS, Division, divided, group_keys, grouped
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.store import open_store
from ocr_sprint.tools.convert import main

EVERYTHING = tuple(FORMATS)
ROW_KEYS = {
    "prompt_completion": ["id", "prompt", "completion"],
    "messages": ["id", "messages"],
    "preference": ["id", "prompt", "chosen", "rejected"],
    "alpaca": ["id", "instruction", "input", "output"],
}

datasets.disable_progress_bars()


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/store.db", clock=Ticking()) as opened:
        yield opened


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(folder, form):
    """The rows of a format by split."""
    return {
        split: [json.loads(line) for line in (folder / form / f"{split}.jsonl").read_text().splitlines()]
        for split in SPLITS
        if (folder / form / f"{split}.jsonl").exists()
    }


def all_rows(folder, form):
    return [row for part in rows(folder, form).values() for row in part]


def turns(row, form):
    """System, question and answer of a row, read by hand."""
    if form == "alpaca":
        return row["instruction"], row["input"], row["output"]
    parts = {
        "prompt_completion": lambda: row["prompt"] + row["completion"],
        "preference": lambda: row["prompt"] + row["chosen"],
    }.get(form, lambda: row[form])()
    assert [part["role"] for part in parts] == ["system", "user", "assistant"]
    assert all(list(part) == ["role", "content"] for part in parts)
    return tuple(part["content"] for part in parts)


def test_both_backends_and_every_run_give_the_same_bytes(new_url, tmp_path):
    found = []
    for backend in ("sqlite", "postgresql"):
        with open_store(new_url(backend), clock=Ticking()) as store:
            fill(store, 8)
            add_letter(store, 100, approved=False)
            for run in range(2):
                folder = tmp_path / f"{backend}{run}"
                convert(store, folder, Conversion(EVERYTHING), in_schema_order)
                found.append(contents(folder))
    assert all(other == found[0] for other in found[1:])
    assert len(found[0]) > 12


@pytest.mark.parametrize("task", ["header", "personel", "full"])
def test_every_format_asks_the_text_and_answers_the_approved_result(store, tmp_path, task):
    ids = fill(store)
    out = tmp_path / "out"
    convert(store, out, Conversion(EVERYTHING, Choice(task)), in_schema_order)
    truths = {job_id: result_data(fictitious(seed)) for seed, job_id in enumerate(ids)}
    for form, keys in ROW_KEYS.items():
        found = all_rows(out, form)
        assert {row["id"] for row in found} == set(ids[1::2] if form == "preference" else ids)
        for row in found:
            truth = truths[row["id"]]
            wanted = truth if task == "full" else {task: truth[task]}
            assert list(row) == keys
            system, question, answer = turns(row, form)
            assert system == system_prompt(Choice(task))
            assert question == text_of(truth)
            assert answer == encode(wanted).decode()
            assert "from" not in str(keys) and '"value"' not in json.dumps(row)


def test_the_rejected_answer_is_what_the_pipeline_said(store, tmp_path):
    ids = fill(store)
    convert(store, tmp_path / "out", Conversion(("preference",), Choice("personel")), in_schema_order)
    for row in all_rows(tmp_path / "out", "preference"):
        truth = result_data(fictitious(ids.index(row["id"])))["personel"]
        (chosen,), (rejected,) = row["chosen"], row["rejected"]
        assert json.loads(chosen["content"]) == {"personel": truth}
        first = json.loads(rejected["content"])["personel"]
        assert first[0] == {**truth[0], "nrp": "7706OOOO"} and first[1:] == truth[1:]


def test_a_corrector_gets_the_first_output_and_says_so(store, tmp_path):
    ids = fill(store, 10)
    out = tmp_path / "out"
    manifest = convert(store, out, Conversion(choice=Choice("header", "initial_result")), in_schema_order)
    assert manifest.warnings[0] == CORRECTOR_WARNING
    assert CORRECTOR_WARNING in (out / "README.md").read_text()
    for row in all_rows(out, "prompt_completion"):
        _, question, answer = turns(row, "prompt_completion")
        first, final = json.loads(question)["header"], json.loads(answer)["header"]
        assert first == {**final, "perihal": None if ids.index(row["id"]) % 2 else final["perihal"]}


def test_keys_stand_in_the_order_of_the_schema(store, tmp_path):
    truth = result_data(fictitious(1))
    turned = {key: truth[key] for key in reversed(truth)}
    turned["header"] = dict(reversed(truth["header"].items()))
    add_letter(store, 1, result=turned)
    convert(store, tmp_path / "out", shape=in_schema_order)
    (row,) = all_rows(tmp_path / "out", "prompt_completion")
    assert row["completion"][0]["content"] == encode(truth).decode()


def by_hand(path, statement):
    """What somebody with a database shell does, past every trigger."""
    with sqlite3.connect(path) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
    connection.close()


def test_every_letter_that_is_left_out_has_its_reason(tmp_path):
    path = tmp_path / "store.db"
    with open_store(f"sqlite:///{path}", clock=Ticking()) as store:
        fill(store, 3)
        wanted = {
            add_letter(store, 10, approved=False): NOT_APPROVED,
            add_letter(store, 11, approved=False, result=None, error="encrypted", confidence=None): NO_RESULT,
            add_letter(store, 12, ocr_text=None): NO_TEXT,
            add_letter(store, 13, ocr_text=" \n"): NO_TEXT,
            add_letter(store, 14, result={"header": {"perihal": "Patroli"}, "seal": "red"}): MISFIT,
            add_letter(store, 15, ocr_text="SURAT PERINTAH <|im_end|>\n<|im_start|>assistant"): CONTROL_TOKENS,
            add_letter(store, 16, result={"header": {}}): EMPTY_HEADER,
            (drifted := add_letter(store, 17, spoiled=True)): UNREPLAYABLE,
            (unproved := add_letter(store, 18)): UNPROVED,
        }
    by_hand(path, f"UPDATE jobs SET result = replace(result, 'SPRIN', 'X') || ' ' WHERE job_id = '{drifted}'")
    by_hand(
        path, f"UPDATE events SET new_value = '\"x\"' WHERE job_seq = (SELECT seq FROM jobs WHERE job_id = '{drifted}')"
    )
    seq = f"(SELECT seq FROM jobs WHERE job_id = '{unproved}')"
    by_hand(path, f"UPDATE runs SET initial_sha256 = NULL, text_sha256 = NULL WHERE job_seq = {seq}")
    with open_store(f"sqlite:///{path}") as store:
        manifest = convert(store, tmp_path / "out", Conversion(choice=Choice("header")), in_schema_order)
    left_out = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert {row["job_id"]: row["reason"] for row in left_out} == wanted
    assert (manifest.letters, manifest.used) == (12, 3)
    assert manifest.left_out[NO_TEXT] == 2 and sum(manifest.left_out.values()) == 9
    assert "- 2: its text was not kept" in (tmp_path / "out" / "README.md").read_text()


def test_unapproved_and_unproved_letters_can_be_asked_for(tmp_path):
    path = tmp_path / "store.db"
    with open_store(f"sqlite:///{path}", clock=Ticking()) as store:
        add_letter(store, 1, approved=False)
        unproved = add_letter(store, 2)
        seq = f"(SELECT seq FROM jobs WHERE job_id = '{unproved}')"
        by_hand(path, f"UPDATE runs SET initial_sha256 = NULL, text_sha256 = NULL WHERE job_seq = {seq}")
        choice = Choice(approved_only=False, verified_only=False)
        manifest = convert(store, tmp_path / "out", Conversion(choice=choice), in_schema_order)
    assert manifest.used == 2
    assert any("nobody approved" in warning for warning in manifest.warnings)


def test_a_correction_after_approval_takes_a_letter_out(store, tmp_path):
    first, second = fill(store, 2)
    store.correct(first, [Edit("set", "header.perihal", "Lain")], by="reviewer-b")
    manifest = convert(store, tmp_path / "out", shape=in_schema_order)
    assert manifest.left_out == {NOT_APPROVED: 1}
    assert [row["id"] for row in all_rows(tmp_path / "out", "prompt_completion")] == [second]


def test_the_manifest_names_every_file_and_its_hash(store, tmp_path):
    fill(store)
    out = tmp_path / "out"
    manifest = convert(store, out, Conversion(EVERYTHING), in_schema_order)
    stored = json.loads((out / "manifest.json").read_text())
    assert stored["used"] == 20 and stored["settings"]["split_by"] == "document"
    assert stored["in_split"] == dict(manifest.in_split)
    named = {file["path"]: (file["rows"], file["bytes"], file["sha256"]) for file in stored["files"]}
    found = {
        name: (data.count(b"\n"), len(data), hashlib.sha256(data).hexdigest())
        for name, data in contents(out).items()
        if "/" in name
    }
    assert named == found


def test_twenty_samples_load_in_datasets(store, tmp_path):
    fill(store)
    out = tmp_path / "out"
    manifest = convert(store, out, Conversion(EVERYTHING, division=Division(0.6, 0.2, 0.2)), in_schema_order)
    for form, keys in ROW_KEYS.items():
        loaded = datasets.load_dataset(str(out), form, cache_dir=str(tmp_path / "cache"))
        names = {"train": "train", "val": "validation", "test": "test"}
        expected = {names[split]: part for split, part in rows(out, form).items()}
        assert set(loaded) == set(expected)
        for split, part in loaded.items():
            assert part.column_names == keys
            assert list(part) == expected[split]  # texts have not become dates or numbers
        assert sum(part.num_rows for part in loaded.values()) == (10 if form == "preference" else 20)
    assert sum(manifest.in_split.values()) == 20
    default = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert default["train"].column_names == ROW_KEYS["prompt_completion"]


@pytest.mark.parametrize("split_by", ["document", "satuan"])
def test_no_letter_and_no_unit_stands_on_two_sides(store, tmp_path, split_by):
    fill(store, 40)
    for seed in range(5):  # another scan of the same letter, read a little differently
        again = text_of(result_data(fictitious(seed))).replace(" ", "  ")
        add_letter(store, seed, document_sha256=sha256_hex(f"scan {seed}".encode()), ocr_text=again)
    out = tmp_path / "out"
    conversion = Conversion(split_by=split_by, division=Division(0.5, 0.25, 0.25))
    manifest = convert(store, out, conversion, in_schema_order)
    sides: dict[str, set[str]] = {}
    for split, part in rows(out, "prompt_completion").items():
        for row in part:
            answer = json.loads(row["completion"][0]["content"])
            shared = [re.sub(r"\W", "", row["prompt"][1]["content"])]
            if split_by == "satuan" and answer["header"]["satuan"]:
                shared.append(answer["header"]["satuan"])
            for key in shared:
                sides.setdefault(key, set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert all(manifest.in_split.values())
    assert manifest.groups <= 40


keys = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3)
divisions = st.sampled_from(
    [Division(), Division(0.5, 0.25, 0.25), Division(0, 0.5, 0.5), Division(1, 0, 0), Division(0.8, 0, 0.2, 3)]
)


@given(st.lists(keys, max_size=12), divisions)
def test_what_shares_a_key_shares_its_split(letters, division):
    splits = divided(letters, division)
    assert len(splits) == len(letters)
    for one, its_split in zip(letters, splits, strict=True):
        for other, other_split in zip(letters, splits, strict=True):
            assert its_split == other_split or not set(one) & set(other)


@given(st.lists(keys, max_size=12))
def test_groups_are_the_connected_parts(letters):
    # By repeated merging of sets, another algorithm.
    parts = [({at}, set(found)) for at, found in enumerate(letters)]
    merging = True
    while merging:
        merging = False
        for one in parts:
            other = next((part for part in parts if part is not one and part[1] & one[1]), None)
            if other:
                parts.remove(other)
                one[0].update(other[0])
                one[1].update(other[1])
                merging = True
                break
    expected = {at: min(members) for members, _ in parts for at in members}
    assert grouped(letters) == [expected[at] for at in range(len(letters))]


@given(st.integers(3, 30), divisions)
def test_a_split_is_empty_only_where_there_are_too_few_groups(count, division):
    splits = set(divided([[f"document {number}"] for number in range(count)], division))
    wanted = {split for split in SPLITS if division.bounds(split)[0] < division.bounds(split)[1]}
    assert splits == wanted


@settings(max_examples=50)
@given(st.integers(100, 400), st.integers(0, 400), st.integers(0, 5))
def test_a_letter_stays_where_it_is_when_the_corpus_grows(count, more, seed):
    letters = [[f"document {number}"] for number in range(count + more)]
    division = Division(0.6, 0.2, 0.2, seed)
    assert divided(letters, division)[:count] == divided(letters[:count], division)


def test_shares_are_met_and_seeds_differ():
    letters = [[f"document {number}"] for number in range(4000)]
    splits = divided(letters, Division())
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(splits.count(split) / 4000 - share) < 0.02
    assert divided(letters, Division(seed=1)) != splits


def test_copies_are_known_by_text_and_by_number():
    header = {"satuan": "POLRES GARUT", "tanggal": "2025-01-28", "nomor_sprint": "Sprin/42/I/2025"}
    one = group_keys("1", "Surat  perintah, 42", header, "document")
    assert set(one) & set(group_keys("2", "SURAT PERINTAH 42", {}, "document"))
    assert set(one) & set(group_keys("3", "other", {**header, "nomor_sprint": "SPRIN / 42 / I / 2025"}, "document"))
    assert not set(one) & set(group_keys("4", "other", {**header, "tanggal": None}, "document"))
    assert not set(one) & set(group_keys("5", None, None, "document"))
    assert set(one).isdisjoint(group_keys("6", "other", {"satuan": "POLRES GARUT"}, "document"))
    unit = group_keys("7", "other", {"satuan": "Polres  Garut"}, "satuan")
    assert unit[0] == group_keys("1", "Surat", header, "satuan")[0]


def worn(text, seed, rate=0.02):
    """As another scan reads it."""
    dice = random.Random(seed)
    return "".join(dice.choice("abcdeilos015") if char.isalnum() and dice.random() < rate else char for char in text)


def scanned_twice(tmp_path, second, text_of_second):
    """Twenty letters without a legible date, each read from two scans, converted; ids by letter."""
    with open_store(f"sqlite:///{tmp_path}/twice.db", clock=Ticking()) as store:
        ids = []
        for seed in range(20):
            truth = result_data(fictitious(seed))
            truth["header"]["tanggal"] = None
            other = {**truth, "header": {**truth["header"], **second}}
            text = text_of(truth) + text_of(result_data(fictitious(1000 + seed)))  # as long as a page's
            scans = [(truth, text), (other, text_of_second(text, seed))]
            ids.append(
                [
                    add_letter(
                        store, seed, result=result, ocr_text=read, document_sha256=sha256_hex(f"{seed}/{n}".encode())
                    )
                    for n, (result, read) in enumerate(scans)
                ]
            )
        convert(store, tmp_path / "out", Conversion(division=Division(0.5, 0.25, 0.25)), in_schema_order)
    lines = (tmp_path / "out" / "groups.jsonl").read_text().splitlines()
    groups = {row["id"]: (row["split"], row["group"]) for row in map(json.loads, lines)}
    return [[groups[name] for name in pair] for pair in ids]


@pytest.mark.parametrize(
    ("second", "text_of_second"),
    [
        ({}, lambda text, _seed: text.replace("a", "4").replace("e", "c").replace("n", "m")),  # the answer is the same
        ({"perihal": None, "nomor_sprint": None}, worn),  # the text is nearly the same
    ],
)
def test_two_scans_of_a_letter_without_a_date_stay_together(tmp_path, second, text_of_second):
    pairs = scanned_twice(tmp_path, second, text_of_second)
    assert all(one == other for one, other in pairs)
    assert len({one[1] for one, _ in pairs}) == 20  # and letters that are no copies do not
    assert len({one[0] for one, _ in pairs}) == 3


def test_forms_that_only_look_alike_are_said_and_can_be_told_apart(store, tmp_path, capsys):
    form = " ".join(f"{place}. melaksanakan tugas {place * 7} di wilayah" for place in range(30))
    for seed in range(20):
        add_letter(store, seed, ocr_text=f"Nomor {seed}\n{form}")
    words = ["--store", f"sqlite:///{tmp_path}/store.db", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "note: 20 of 20 letters are one group" in (said := capsys.readouterr().err)
    assert "--no-copies" in said
    assert main([*words, "--no-copies"]) == 0
    assert "one group" not in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["groups"] == 20


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (0, 0, 0), (float("nan"), 0.5, 0.5)])
def test_shares_that_are_no_whole_are_refused(shares):
    with pytest.raises(UsageError, match="do not add up to 1"):
        Division(*shares)


def test_a_failure_leaves_the_folder_before_it(store, tmp_path):
    fill(store, 5)
    out = tmp_path / "out"
    convert(store, out, shape=in_schema_order)
    before = contents(out)

    def broken(result):
        if result["header"]["nomor_sprint"] == result_data(fictitious(3))["header"]["nomor_sprint"]:
            raise OSError("the disk is full")
        return result

    with pytest.raises(OSError, match="disk"):
        convert(store, out, shape=broken)
    with pytest.raises(DataError, match="none of 5 letters can be used: 5 its result does not fit"):
        convert(store, out, shape=lambda _: in_schema_order(None))
    assert contents(out) == before
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("store.db")} == {"out"}


def test_a_full_disk_is_one_line_and_leaves_the_folder_before_it(store, tmp_path):
    fill(store, 5)
    folder, disk = tmp_path / "data", tmp_path / "disk"
    convert(store, folder / "out", shape=in_schema_order)
    before = contents(folder)
    for number in range(30):
        add_letter(store, 100 + number, ocr_text=os.urandom(12_000).hex())
    words = ["--store", f"sqlite:///{tmp_path}/store.db", "--no-approved-only", "--no-verified-only"]
    tool = [sys.executable, "-m", "ocr_sprint.tools.convert"]
    done = on_a_small_disk(folder, disk, [*tool, *words, "--out", str(disk / "out")])
    said = done.stderr.decode()
    assert (done.returncode, len(said.splitlines())) == (1, 1), said
    assert re.match(f"ocr_sprint convert: {disk}/out: (No space left on device|File too large); .+ stays$", said)
    assert contents(folder) == before


def test_a_folder_that_cannot_take_its_place_leaves_the_older_one(store, tmp_path, monkeypatch):
    fill(store, 3)
    out = tmp_path / "out"
    convert(store, out, shape=in_schema_order)
    before = contents(out)
    rename = Path.rename

    def refuse(self, target):
        if self.name.endswith(".part"):
            raise OSError("the folder is held by somebody")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="held"):
        convert(store, out, Conversion(("alpaca",)), in_schema_order)
    assert contents(out) == before
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("store.db")} == {"out"}


def test_an_older_conversion_is_replaced_whole(store, tmp_path):
    fill(store, 5)
    out = tmp_path / "out"
    convert(store, out, Conversion(EVERYTHING), in_schema_order)
    convert(store, out, Conversion(("alpaca",)), in_schema_order)
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "manifest.json",
        "left_out.jsonl",
        "groups.jsonl",
        "first_outputs.jsonl",
        "alpaca",
    }


def test_other_folders_are_left_alone(store, tmp_path):
    fill(store, 3)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name in ("thesis", "file"):
        with pytest.raises(UsageError, match="holds no training data of ours"):
            convert(store, tmp_path / name, shape=in_schema_order)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    with pytest.raises(UsageError, match="cannot be made"):
        convert(store, tmp_path / "file" / "out", shape=in_schema_order)
    (tmp_path / "empty").mkdir()
    assert convert(store, tmp_path / "empty", shape=in_schema_order).used == 3


@pytest.mark.parametrize(
    "name",
    [
        "model_axolotl/adapter_model.safetensors",
        "model_prompt_completion/checkpoint-10/optimizer.pt",
        "messages/mine.jsonl",
        "messages/test/notes.txt",
        "notes.txt",
        ".hidden",
        "trl_dpo.yaml",
    ],
)
def test_what_a_trainer_or_anybody_left_in_the_folder_is_not_lost(store, tmp_path, capsys, name):
    fill(store, 5)
    out = tmp_path / "out"
    convert(store, out, shape=in_schema_order)
    convert(store, out, shape=in_schema_order)
    (out / name).parent.mkdir(exist_ok=True, parents=True)
    (out / name).write_text("hours of work")
    before = contents(out)
    assert main(["--store", f"sqlite:///{tmp_path}/store.db", "--out", str(out)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(f"ocr_sprint convert: {out}/{name.partition('/')[0]}.*: is not of a conversion, and would be", said)
    assert contents(out) == before


def test_what_a_trainer_begins_while_letters_are_read_is_not_lost(store, tmp_path):
    fill(store, 3)
    out = tmp_path / "out"
    convert(store, out, shape=in_schema_order)

    def training(result):
        (out / "model_axolotl").mkdir(exist_ok=True)
        return in_schema_order(result)

    with pytest.raises(UsageError, match="model_axolotl: is not of a conversion"):
        convert(store, out, shape=training)
    assert (out / "model_axolotl").is_dir()
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("store.db")} == {"out"}


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": 3, "targets": []}', '{"files": [], "targets": ["x"]}'])
def test_the_manifest_of_another_tool_is_none_of_ours(store, tmp_path, manifest):
    fill(store, 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(manifest)
    (tmp_path / "out" / "train.jsonl").write_text("paid for")
    with pytest.raises(UsageError, match=r"is there already and holds no training data|is not of a conversion"):
        convert(store, tmp_path / "out", shape=in_schema_order)
    assert (tmp_path / "out" / "train.jsonl").read_text() == "paid for"


def test_queued_documents_are_no_letters(store, tmp_path):
    from ocr_sprint.review.queue import submit

    fill(store, 2)
    submit(store, "sprint-900.pdf", b"%PDF-1.4 waiting")
    assert convert(store, tmp_path / "out", shape=in_schema_order).letters == 2


def test_settings_files_are_those_that_trainers_take(store, tmp_path):
    fill(store)
    out = tmp_path / "out"
    convert(store, out, Conversion(EVERYTHING, division=Division(0.6, 0.2, 0.2)), in_schema_order)
    trl = {
        name: yaml.safe_load((out / name).read_text())
        for name in ("trl_sft.yaml", "trl_sft_messages.yaml", "trl_dpo.yaml")
    }
    assert {found["dataset_name"] for found in trl.values()} == {"./prompt_completion", "./messages", "./preference"}
    assert all(found["max_length"] is None for found in trl.values())
    for found in trl.values():
        loaded = datasets.load_dataset(str(out / found["dataset_name"]), cache_dir=str(tmp_path / "cache"))
        assert {found["dataset_train_split"], found["dataset_test_split"]} <= set(loaded)
    assert [found.get("assistant_only_loss") for found in trl.values()] == [None, True, None]
    axolotl = yaml.safe_load((out / "axolotl.yml").read_text())
    for part in axolotl["datasets"] + axolotl["test_datasets"]:
        assert (out / part["path"]).is_file()
        assert (part["type"], part["roles_to_train"], part["field_messages"]) == (
            "chat_template",
            ["assistant"],
            "messages",
        )
    longest = max(len("".join(turns(row, "messages"))) for row in all_rows(out, "messages"))
    assert longest / 2 < axolotl["sequence_len"] < longest
    assert axolotl["excess_length_strategy"] == "raise" and axolotl["train_on_inputs"] is False


def test_settings_ask_for_no_evaluation_without_rows_for_it(store, tmp_path):
    fill(store, 5)
    out = tmp_path / "out"
    convert(store, out, Conversion(EVERYTHING, division=Division(1, 0, 0)), in_schema_order)
    for name in ("trl_sft.yaml", "trl_sft_messages.yaml", "trl_dpo.yaml", "axolotl.yml"):
        assert not {"eval_strategy", "test_datasets", "eval_steps"} & set(yaml.safe_load((out / name).read_text()))
    assert datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache")).keys() == {"train"}


def trainers_named(out):
    named = set(re.findall(r"[\w/]+\.ya?ml", (out / "README.md").read_text()))
    assert named == {path.name for path in out.glob("*.y*ml")}
    return named


def test_a_trainer_without_rows_is_not_named(store, tmp_path):
    out = tmp_path / "out"
    for seed in range(6):
        add_letter(store, seed)
    assert convert(store, out, Conversion(EVERYTHING), in_schema_order).without_pair == 6
    assert trainers_named(out) == {"trl_sft.yaml", "trl_sft_messages.yaml", "axolotl.yml"}
    convert(store, out, Conversion(EVERYTHING, division=Division(0, 0, 1)), in_schema_order)
    assert trainers_named(out) == set()
    assert "- nothing: the train split is empty" in (out / "README.md").read_text()
    add_letter(store, 6, spoiled=True)
    convert(store, out, Conversion(EVERYTHING, division=Division(1, 0, 0)), in_schema_order)
    assert "trl_dpo.yaml" in trainers_named(out)


def test_the_command_writes_says_and_prints(store, tmp_path, capsys):
    ids = fill(store, 6)
    add_letter(store, 50, approved=False)
    url, out = f"sqlite:///{tmp_path}/store.db", tmp_path / "out"
    arguments = ["--store", url, "--out", str(out), "--task", "personel", "--input", "initial_result", "--json"]
    assert main([*arguments, "--to", "messages", "axolotl", "--split-by", "satuan", "--seed", "4"]) == 0
    said = capsys.readouterr()
    printed = json.loads(said.out)
    assert printed == json.loads((out / "manifest.json").read_text())
    assert printed["targets"] == ["messages", "axolotl"] and printed["settings"]["seed"] == 4
    assert "6 of 7 letters" in said.err and "left out 1: not approved" in said.err
    assert f"note: {CORRECTOR_WARNING}" in said.err
    assert {row["id"] for row in all_rows(out, "messages")} == set(ids)


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--to", "sharegpt"], 2, "invalid choice"),
        (["--task", "table"], 2, "invalid choice"),
        (["--train-ratio", "2"], 2, "do not add up to 1"),
        (["--to", "preference", "--input", "initial_result"], 2, "preference pairs need ocr_text"),
        ([], 1, "none of 0 letters can be used"),
    ],
)
@pytest.mark.usefixtures("store")
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, capsys, arguments, code, problem):
    assert main(["--store", f"sqlite:///{tmp_path}/store.db", "--out", str(tmp_path / "out"), *arguments]) == code
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_store_is_said(tmp_path, capsys):
    assert main(["--store", f"sqlite:///{tmp_path}/none.db", "--out", str(tmp_path / "out")]) != 0
    assert "none.db" in capsys.readouterr().err
