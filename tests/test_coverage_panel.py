"""The coverage panel without a browser: every question, what is refused, and what reaches the disk."""

from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.ground_truth.crosstab import OTHERS, Places
from ocr_sprint.ground_truth.gap_prices import labels_to_fill
from ocr_sprint.ground_truth.scores import find_layout
from ocr_sprint.ground_truth.table import Column, Records, Source
from ocr_sprint.panels.coverage import CoveragePanel, coverage_panel
from ocr_sprint.panels.screen import reply
from ocr_sprint.tools.batch_labeler import main as batch_labeler

KINDS = ("open", "table", "gaps", "records", "record", "ids", "write")

SENTENCE = "residents decided work together gain measurable people community justice equal"


def articles(count: int, start: int = 0) -> list[dict[str, Any]]:
    generator = np.random.default_rng(count)
    scores = np.clip(np.round(generator.gamma(1.7, 1.3, (count, 1)) + generator.normal(0, 1, (count, 3))), 0, 10)
    made = []
    for number, (agency, justice, wonder) in enumerate(scores.astype(int).tolist(), start):
        label = {"agency": agency, "justice": justice, "wonder": wonder, "tier": "impact" if agency > 4 else "none"}
        article = {"id": f"a{number}", "title": f"Sumur {number}", "language": ("id", "en")[number % 2]}
        made.append({**article, "source": f"koran {number % 41}", "text": "Warga desa.", "uplifting_analysis": label})
    return made


def write(path: Path, made: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in made).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "truth" / "uplifting").mkdir(parents=True)
    return write(tmp_path / "truth" / "uplifting" / "labeled_articles.jsonl", articles(600))


def opened(labels: Path, *more: Any, **settings: Any) -> CoveragePanel:
    return coverage_panel(labels, *more, sidecar=False, output=labels.parent, **settings)


def ask(panel: CoveragePanel, kind: str, **body: Any) -> dict[str, Any]:
    answered, _ = reply(panel.desk.answer, {"id": "q", "kind": kind, "body": body})
    assert "error" not in answered, answered["error"]
    found: dict[str, Any] = json.loads(json.dumps(answered["body"]))  # whatever is not JSON fails here
    return found


def refused(panel: CoveragePanel, kind: str, **body: Any) -> str:
    answered, _ = reply(panel.desk.answer, {"id": "q", "kind": kind, "body": body})
    return str(answered["error"])


def test_every_cell_counts_the_records_that_it_lists(labels: Path) -> None:
    panel = opened(labels)
    for view in (
        {},
        {"rows": "agency", "columns": "wonder"},
        {"rows": "tier", "columns": "source", "only": ["language", 0]},
    ):
        [table] = ask(panel, "table", **view)["tables"]
        counted = 0
        for i, line in enumerate(table["cells"]):
            for j, (count, _, step) in enumerate(line):
                total = ask(panel, "records", **view, row=i, column=j)["total"]
                assert (f"{total:,}", total > 0) == (count, step > 0)
                counted += total
        assert counted == {0: 3 * 600, 2: 600, 3: 300}[len(view)]


def test_the_pages_of_a_cell_are_its_ids_in_order(labels: Path) -> None:
    panel = opened(labels)
    _, [copied] = panel.desk.answer("ids", {"row": 2, "column": 2})
    first = ask(panel, "records", row=2, column=2)
    pages = [ask(panel, "records", row=2, column=2, page=page)["records"] for page in range(first["pages"])]
    listed = [one for page in pages for one in page]
    assert [one["id"] for one in listed] == copied.decode().split()
    assert {one["scores"][2] for one in listed} == {"2"}
    assert [one["head"] for one in listed] == [f"Sumur {one['id'][1:]}" for one in listed]
    assert len({one["row"] for one in listed}) == first["total"]


def test_sources_beyond_thirty_are_one_column_that_can_be_looked_into(labels: Path) -> None:
    [table] = ask(opened(labels), "table", rows="tier", columns="source")["tables"]
    assert (len(table["columns"]), table["columns"][-1]) == (31, OTHERS)
    total = sum(int(line[-1][0]) for line in table["cells"])
    assert total == 600 - sum(int(line[j][0]) for line in table["cells"] for j in range(30))


@pytest.mark.parametrize("kind", ["ids", "records"])
def test_a_file_is_written_once_and_nothing_else(labels: Path, kind: str) -> None:
    panel = opened(labels)
    before = set(labels.parent.iterdir())
    said = ask(panel, "write", row=0, column=1, what=kind, file="agency 1.txt")["said"]
    written = labels.parent / "agency 1.txt"
    assert set(labels.parent.iterdir()) - before == {written}
    lines = [
        line for line in labels.read_bytes().splitlines(True) if json.loads(line)["uplifting_analysis"]["agency"] == 1
    ]
    wanted = lines if kind == "records" else [f"{json.loads(line)['id']}\n".encode() for line in lines]
    assert written.read_bytes() == b"".join(wanted)
    assert said.startswith(f"wrote {len(lines)} {kind} to ")
    for name in ("agency 1.txt", "labeled_articles.jsonl"):
        assert "stands already; choose another name" in refused(panel, "write", row=0, column=1, file=name)
    for name in ("", "../x.txt", "/x.txt", "a/b", "..", "."):
        said = refused(panel, "write", row=0, column=1, file=name)
        assert "is no file name" in said or "stands already" in said
    assert set(labels.parent.iterdir()) - before == {written}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "body",
    [{"row": "x"}, {"rows": 7}, {"only": ["tier"]}, {"show": "all"}, {"unheard": 1}, {"only": ["tier", "x"]}],
    ids=lambda body: next(iter(body)),
)
def test_a_message_of_another_form_is_refused_in_a_line(labels: Path, kind: str, body: dict[str, Any]) -> None:
    said = refused(opened(labels), kind, **body)
    assert said.startswith(f"the question is not understood: {next(iter(body))}")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        ("close", {}, "'close' is no question; ask one of open, table"),
        ("table", {"rows": "agency"}, "agency is set against nothing"),
        ("table", {"rows": "agency", "columns": "agency"}, "agency is set against agency"),
        ("table", {"rows": "agnecy", "columns": "agency"}, "'agnecy' is no dimension or column; there are"),
        ("table", {"show": "after", "after": "gone"}, "there is no set 'gone'; there are labelled records"),
        ("table", {"only": ["tier", 9]}, "tier has no bin 9; there are 2"),
        ("gaps", {"only": ["tier", -1]}, "tier has no bin -1; there are 2"),
        ("records", {"row": 3}, "there is no row 3; there are 3"),
        ("records", {"row": 0, "column": 11}, "agency has no bin 11; there are 11"),
        ("records", {"rows": "agency", "columns": None}, "'' is no dimension or column"),
        ("records", {"set": "gone"}, "there is no set 'gone'"),
        ("record", {"row": 600}, "there is no record 600; there are 600"),
        ("record", {"row": -1}, "there is no record -1; there are 600"),
        ("ids", {"row": -1}, "there is no row -1; there are 3"),
        ("write", {"row": 9, "file": "x"}, "there is no row 9; there are 3"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(labels: Path, kind: str, body: dict[str, Any], told: str) -> None:
    said = refused(opened(labels), kind, **body)
    assert told in said
    assert "\n" not in said
    assert not (labels.parent / "x").exists()


def test_a_file_that_changed_is_said_and_nothing_wrong_is_shown(labels: Path) -> None:
    panel = opened(labels)
    labels.write_text("\n" * 9)
    found = ask(panel, "records", row=0, column=1)
    assert "has changed since it was read" in found["note"]
    assert {one["head"] for one in found["records"]} == {""}
    assert "has changed since it was read" in refused(panel, "record", row=0)
    assert "has changed since it was read" in refused(panel, "write", row=0, column=1, what="records", file="x")
    assert not (labels.parent / "x").exists()


def test_compressed_labels_show_their_texts(tmp_path: Path) -> None:
    panel = coverage_panel(write(tmp_path / "labels.jsonl.gz", articles(80)), sidecar=False)
    assert ask(panel, "record", row=70)["head"] == "Sumur 70"


def test_a_run_beside_the_labels_prices_a_gap_and_goes_on(labels: Path) -> None:
    told = {"filter": "uplifting/v1", "model": "gemini-2.5-pro", "labelled": 600, "cost": 2.4, "parameters": {}}
    told |= {
        "wanted": {"source": ["raw.jsonl"], "size": 600, "seed": 7},
        "labels_sha256": sha256_hex(labels.read_bytes()),
    }
    told["parameters"] = {"temperature": 0.0, "max_output_tokens": 4096}
    (labels.parent / "summary.json").write_text(json.dumps(told))
    panel = opened(labels)
    assert ask(panel, "open")["cost"] == "measured on 600 labels of gemini-2.5-pro"
    first = ask(panel, "gaps")["gaps"][0]
    more = int(first["draws"].split(" ")[0].replace(",", ""))
    assert first["cost"] == (f"${0.004 * more:.2f}" if 0.004 * more < 100 else f"${0.004 * more:,.0f}")
    tail = f"--llm gemini-pro --target-count {600 + more} --random-sample --seed 7 --estimate"
    assert first["command"].endswith(tail)
    labels.write_bytes(labels.read_bytes() + b"\n")
    assert ask(opened(labels), "open")["cost"] == ""


def test_gaps_come_cheapest_first_and_marks_agree_with_them(labels: Path) -> None:
    found = ask(opened(labels, size=300), "gaps")
    known = [gap for gap in found["gaps"] if not gap["draws"].startswith("more")]
    numbers = [int(gap["draws"].split(" ")[0].replace(",", "")) for gap in known]
    assert numbers == sorted(numbers)
    assert found["gaps"][: len(known)] == known
    missing = sum(int(words.split(" ")[0].replace(",", "")) for *_, words, _, _ in found["marks"])
    assert missing == sum(gap["missing"] for gap in found["gaps"])


def test_gaps_are_reckoned_beside_other_work_and_told(labels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, sent = opened(labels), Queue[dict[str, Any]]()
    monkeypatch.setattr(panel, "send", lambda message, _buffers=None: sent.put(message))

    def answers(body: dict[str, Any]) -> dict[str, Any]:
        panel._hear({"id": "1", "kind": "gaps", "body": body})
        both = [sent.get(timeout=60), sent.get(timeout=60)]  # in whichever order
        assert {"id": "1", "body": {"later": True}} in both
        [told] = [each["body"] for each in both if each.get("kind") == "gaps"]
        assert told["asked"] == body
        return dict(told)

    told = answers({"only": None})
    assert told["error"] == ""
    panel._hear({"id": "2", "kind": "gaps", "body": {}})
    assert sent.get(timeout=60)["body"]["gaps"] == told["gaps"]
    assert answers({"only": ["tier", 7]})["error"] == "tier has no bin 7; there are 2"
    monkeypatch.setattr(panel.desk, "answer", lambda *_: 1 // 0)
    assert answers({"only": ["tier", 1]})["error"].startswith("ZeroDivisionError")


def test_the_command_of_a_gap_goes_on_with_the_same_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = SENTENCE.split()
    texts = [" ".join(words[: 1 + number % 10] * (1 + number % 4)) + f" {number}" for number in range(400)]
    write(Path("raw.jsonl"), [{"id": f"a{number}", "title": "", "content": text} for number, text in enumerate(texts)])
    first = "--filter filters/uplifting/v1 --source raw.jsonl --output-dir truth --llm baseline --target-count 60"
    assert batch_labeler([*first.split(), "--random-sample", "--seed", "5"]) == 0
    labels = Path("truth/uplifting/labeled_articles.jsonl")
    before = {json.loads(line)["id"]: line for line in labels.read_bytes().splitlines()}
    panel = coverage_panel(labels, sidecar=False)
    gap = ask(panel, "gaps")["gaps"][0]
    assert (gap["cost"], ask(panel, "open")["cost"]) == ("free", "measured on 60 labels of words-1")
    program, command, *options = shlex.split(gap["command"])
    assert (program, command, options[-1]) == ("ocr_sprint", "batch_labeler", "--estimate")
    assert batch_labeler(options[:-1]) == 0
    after = {json.loads(line)["id"]: line for line in labels.read_bytes().splitlines()}
    assert len(after) > len(before)
    assert before.items() <= after.items()  # nothing was asked about twice: the labels are the same to the byte


def predicted(labels: Path) -> tuple[Path, Path]:
    """Predictions of the labels and of twice as many further texts, and those texts."""
    lines, texts = [], articles(1200, start=600)
    for number, article in enumerate([*articles(600), *texts]):
        scores = {name: article["uplifting_analysis"][name] for name in ("agency", "justice", "wonder")}
        said = {name: 0.8 * score + number % 5 / 4 for name, score in scores.items()}
        known = {"labels": scores} if number < 600 else {}
        lines.append(json.dumps({"id": article["id"], "predictions": said, "oof": True, **known}) + "\n")
    path = labels.with_name("predictions.jsonl")
    path.write_text("".join(lines))
    hidden = [{"id": text["id"], "content": "Sumur."} for text in texts]
    return path, write(labels.with_name("raw.jsonl"), hidden)


def test_a_student_finds_texts_for_a_gap(labels: Path) -> None:
    path, raw = predicted(labels)
    panel = opened(labels, predictions=path, unlabelled=[raw], size=100, llm="gemini-flash-lite")
    gap = next(gap for gap in ask(panel, "gaps")["gaps"] if gap["dimension"] == "wonder")
    helped = int(gap["student"].split(" of 1,200 unlabelled texts")[0].replace(",", ""))
    assert 0 < helped < int(gap["draws"].split(" ")[0].replace(",", "").replace("more", "99999"))
    place = ask(panel, "gaps")["gaps"].index(gap)
    said = ask(panel, "texts", gap=place, file="next.jsonl")
    lines = labels.with_name("next.jsonl").read_bytes().splitlines(True)
    assert len(lines) == helped
    assert set(lines) <= set(raw.read_bytes().splitlines(True))
    assert f"--source {labels.with_name('next.jsonl')} --output-dir {labels.with_name('next')}" in said["command"]
    first = int(gap["scores"].split("-")[0])
    truth = {article["id"]: article["uplifting_analysis"]["wonder"] for article in articles(1200, start=600)}
    hits = sum(truth[json.loads(line)["id"]] >= first for line in lines)
    assert hits > 5 * helped * sum(score >= first for score in truth.values()) / 1200  # than by lot
    assert "stands already" in refused(panel, "texts", gap=place, file="next.jsonl")
    assert "there is no such gap" in refused(panel, "texts", gap=99, file="x.jsonl")
    assert "there is no such gap, or no student" in refused(opened(labels), "texts", file="x.jsonl")
    assert "name their files with unlabelled=" in refused(opened(labels, predictions=path), "texts", file="x.jsonl")
    assert not labels.with_name("x.jsonl").exists()


def test_a_second_file_and_a_part_of_the_first(labels: Path, tmp_path: Path) -> None:
    second = write(tmp_path / "second.jsonl", articles(90, start=5000))
    tables = ask(opened(labels, second), "table", show="both")["tables"]
    assert [table["caption"] for table in tables] == ["labelled records: 600", "second: 90"]
    part = write(tmp_path / "part.jsonl", articles(600)[10:60])
    panel = opened(labels, part)
    [change] = ask(panel, "table", show="change", rows="source", columns="tier")["tables"]
    assert (change["set"], len(change["rows"])) == ("part", 31)
    totals = [sum(int(cell[0].split(" → ")[1]) for line in change["cells"] for cell in line)]
    assert totals == [50]
    assert ask(panel, "records", set="part", row=0, column=0)["total"] <= 50
    assert ask(panel, "gaps", after="part")["compared"].startswith("part: 50 of 600 records; ")


def test_what_was_looked_at_is_there_for_a_page_that_loads_again(labels: Path) -> None:
    panel = opened(labels)
    view = {"rows": "tier", "columns": "wonder", "only": None, "show": "before", "after": None}
    ask(panel, "table", **view)
    ask(panel, "records", rows="tier", columns="wonder", row=1, column=2, page=0)
    refused(panel, "table", rows="gone")
    state = ask(panel, "open")["state"]
    assert (state["table"], state["records"]["row"]) == (view, 1)


def test_records_in_memory_and_labels_that_cannot_be_read(labels: Path) -> None:
    records = opened(labels).desk.corpus.records
    assert ask(coverage_panel(records), "gaps")["verdict"].startswith("600 records, 3 dimensions.")
    with pytest.raises(UsageError, match="there is no such file"):
        coverage_panel(labels.with_name("gone.jsonl"))
    with pytest.raises(DataError, match=r"has no manifest\.json"):
        opened(labels, labels.parent)
    with pytest.raises(UsageError, match="'gemini-ultra' is no model"):
        opened(labels, llm="gemini-ultra")
    with pytest.raises(UsageError, match="no record has 'satuan'"):
        opened(labels, source="satuan")


def test_the_state_that_a_notebook_saves_tells_nothing(labels: Path) -> None:
    panel = opened(labels)
    for kind in ("open", "table", "gaps", "records", "record"):
        ask(panel, kind)
    state = str(panel.get_state())
    assert [word for word in ("Sumur", "Warga", "koran", "labeled_articles", '"a1"') if word in state] == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10), st.sampled_from("xyz")), min_size=1, max_size=60))
def test_places_agree_with_looking_at_every_record(rows: list[tuple[int, int, str]]) -> None:
    layout = find_layout([{"id": "a", "agency": 1, "wonder": 2}])
    ticks = np.array([(1000 * agency, 1000 * wonder) for agency, wonder, _ in rows], np.int16)
    columns = {"tier": Column.of([tier for *_, tier in rows])}
    empty = [np.zeros(len(rows), np.int64)] * 4
    places = Places(
        Records(layout, (Source(Path("a"), ""),), [str(n) for n in range(len(rows))], ticks, columns, *empty)
    )
    names = columns["tier"].names
    for code, name in enumerate(names):
        wanted = [n for n, (agency, _, tier) in enumerate(rows) if tier == name and agency == rows[0][0]]
        assert places.rows([("tier", code), ("agency", rows[0][0])]).tolist() == wanted
    joint = places.counts("agency", "wonder", [("tier", 0)])
    for agency, wonder, _ in rows:
        assert joint[agency, wonder] == sum(row == (agency, wonder, names[0]) for row in rows)


@given(st.integers(1, 500), st.integers(0, 400), st.integers(1, 4000))
def test_the_labels_that_a_gap_takes_lie_in_their_interval(missing: int, available: int, used: int) -> None:
    draws = labels_to_fill(missing, min(available, used), used)
    assert draws.low >= missing
    if draws.expected is None:
        assert (min(available, used), draws.high) == (0, None)
    else:
        assert draws.high is not None
        assert draws.low <= draws.expected <= draws.high
