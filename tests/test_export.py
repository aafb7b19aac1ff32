"""The corpus: golden bytes, filters, an independent replay of every line, damage, memory, and the command."""

import gzip
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import tracemalloc
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from review_samples import Ticking, changes, new_job, results

from ocr_sprint.core.canonical import canonical, sha256_hex
from ocr_sprint.core.errors import FlaggedError
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.export import Filters, Sample, export_lines, ground_truth_line, samples, write_corpus
from ocr_sprint.review.replay import Event
from ocr_sprint.review.statistics import FieldCount, statistics
from ocr_sprint.review.store import open_store
from ocr_sprint.tools.export_ground_truth import main

PERIHAL = "header.perihal"
ALL = Filters(approved_only=False)
IDENTITY = ["job_id", "filename", "source_kind", "approved", "reviewed_by", "reviewed_at", "created_at"]
KEYS = [*IDENTITY, "initial_result", "final_result", "corrections", "review_flags", "confidence"]


def moment(text):
    return datetime.fromisoformat(text)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def store(path):
    with open_store(f"sqlite:///{path}", clock=Ticking()) as opened:
        yield opened


def filled(store):
    """Five letters: approved and corrected, approved as read, corrected only, untouched, failed."""
    ids = [store.add_job(**new_job(number)) for number in range(4)]
    ids.append(store.add_job(**new_job(4, error="encrypted") | {"result": None, "confidence": None}))
    store.correct(
        ids[0], [Edit("set", PERIHAL, "Patroli"), Edit("set", "personel[0].nrp", "77060000")], by="reviewer-a"
    )
    store.correct(ids[2], [Edit("add", "personel[1]", {"nrp": "90010001"})], by="reviewer-b", reason="row missed")
    store.approve(ids[0], by="reviewer-a")
    store.approve(ids[1], by="reviewer-a")
    return ids


def exported(store, **filters):
    return [json.loads(line) for line in export_lines(store, Filters(**filters))]


def numbers(store, **filters):
    return [int(line["filename"][7:10]) for line in exported(store, **filters)]


def by_hand(path, statement):
    """What somebody with a database shell does, past every trigger."""
    with sqlite3.connect(path) as connection:
        for trigger in ("events_no_update", "events_no_delete", "runs_no_update", "runs_no_delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        connection.execute(statement)
    connection.close()


# A reader who has nothing but the requirements: six keys per correction, every one an exchange of values.
def tokens(path):
    out, text = [], path
    while text:
        if text.startswith('["'):
            key, end = json.JSONDecoder().raw_decode(text[1:])
            out, text = [*out, key], text[end + 2 :]
        elif text.startswith("["):
            out, text = [*out, int(text[1 : text.index("]")])], text[text.index("]") + 1 :]
        else:
            end = min((at for at in (text.find(".", 1), text.find("[", 1)) if at > 0), default=len(text))
            out, text = [*out, text[:end].lstrip(".")], text[end:]
    return out


def undone(line):
    state = json.loads(json.dumps(line["final_result"]))
    for correction in reversed(line["corrections"]):
        *steps, last = tokens(correction["field_path"])
        container = state
        for step in steps:
            container = container[step]
        assert json.dumps(container[last], sort_keys=True) == json.dumps(correction["new_value"], sort_keys=True)
        container[last] = correction["old_value"]
    return state


def test_golden_line():
    text = '{"header":{"nomor_sprint":"Sprin/1/I/2025","perihal":"Penyelidikan \\"kasus\\" – é"},"personel":[]}'
    first = b'{"header":{"nomor_sprint":"Sprin/1/I/2025","perihal":null},"personel":[]}'
    sample = Sample(
        seq=1,
        job_id="c5da6747-0000-5000-8000-000000000000",
        filename="sprint-042.pdf",
        source_kind="pdf",
        approved=True,
        reviewed_by="reviewer-a",
        reviewed_at="2025-06-01T10:15:00Z",
        created_at="2025-05-28T08:02:17Z",
        result=text,
        review_flags='["llm_fallback"]',
        confidence=0.78,
        initial_sha256=sha256_hex(canonical(json.loads(first))),
        text_sha256=sha256_hex(first),
    )
    new = 'Penyelidikan "kasus" – é'
    event = Event(1, "set", PERIHAL, None, new, "reviewer-a", "LLM missed it", "2025-05-30T14:00:00Z")
    assert ground_truth_line(sample, [event]).decode() == (
        '{"job_id":"c5da6747-0000-5000-8000-000000000000","filename":"sprint-042.pdf","source_kind":"pdf",'
        '"approved":true,"reviewed_by":"reviewer-a","reviewed_at":"2025-06-01T10:15:00Z",'
        '"created_at":"2025-05-28T08:02:17Z",'
        '"initial_result":{"header":{"nomor_sprint":"Sprin/1/I/2025","perihal":null},"personel":[]},'
        '"final_result":{"header":{"nomor_sprint":"Sprin/1/I/2025","perihal":"Penyelidikan \\"kasus\\" – é"},'
        '"personel":[]},"corrections":[{"field_path":"header.perihal","old_value":null,'
        '"new_value":"Penyelidikan \\"kasus\\" – é","corrected_by":"reviewer-a","reason":"LLM missed it",'
        '"corrected_at":"2025-05-30T14:00:00Z"}],"review_flags":["llm_fallback"],"confidence":0.78}\n'
    )


def test_every_line_has_the_same_keys_and_replays(store):
    filled(store)
    lines = exported(store, approved_only=False)
    assert [list(line) for line in lines] == [KEYS] * 5
    first = {"header": {"perihal": None}, "personel": [{"nrp": "7706OOOO"}, {"nrp": "8001OOOI"}]}
    assert [line["initial_result"] for line in lines] == [first] * 4 + [None]
    assert [undone(line) for line in lines] == [first] * 4 + [None]
    assert all(line["review_flags"] == ["llm_fallback"] for line in lines)


@settings(max_examples=50)
@given(results, st.data())
def test_a_reader_with_six_keys_replays_any_history(result, data):
    with tempfile.TemporaryDirectory() as folder, open_store(f"sqlite:///{folder}/store.db") as store:
        job_id = store.add_job(**new_job(1) | {"result": result})
        for n in range(data.draw(st.integers(1, 5))):
            event = data.draw(changes(store.job(job_id).result, n + 1))
            store.correct(job_id, [Edit(event.op, event.field_path, event.new_value)], by="reviewer-a")
        (line,) = exported(store, approved_only=False)
        first_sha256 = store.job(job_id).initial_sha256
    assert line["review_flags"] == ["llm_fallback"]
    assert sha256_hex(canonical(line["initial_result"])) == first_sha256
    assert sha256_hex(canonical(undone(line))) == first_sha256


@pytest.mark.parametrize("approved_only", [True, False])
@pytest.mark.parametrize("has_corrections", [True, False, None])
@pytest.mark.parametrize("limit", [None, 0, 1, 9])
def test_filters_together(store, approved_only, has_corrections, limit):
    filled(store)
    approved, corrected = {0, 1}, {0, 2}
    expected = [
        number
        for number in range(5)
        if (number in approved or not approved_only) and has_corrections in (None, number in corrected)
    ]
    filters = {"approved_only": approved_only, "has_corrections": has_corrections, "limit": limit}
    assert numbers(store, **filters) == expected[:limit]


def test_periods_are_half_open_on_the_last_change(store):
    ids = filled(store)
    changed = [moment(store.job(job_id).changed_at) for job_id in ids]
    assert changed[0] > changed[4] > changed[3]  # an old letter that was corrected last
    for since, until in itertools.product([None, *sorted(changed)], repeat=2):
        if since and until and since > until:
            continue
        expected = [n for n, at in enumerate(changed) if (not since or at >= since) and (not until or at < until)]
        assert numbers(store, approved_only=False, since=since, until=until) == expected


def test_increments_deliver_every_change_once(store):
    ids = filled(store)
    edges = [moment("2025-05-28T08:00:00Z").replace(minute=minute) for minute in range(0, 30, 3)]
    seen = [
        number
        for since, until in itertools.pairwise(edges)
        for number in numbers(store, approved_only=False, since=since, until=until)
    ]
    assert sorted(seen) == list(range(len(ids)))


def test_a_fraction_of_a_second_rounds_up(store):
    store.add_job(**new_job(1))
    at = moment(next(store.jobs()).changed_at)
    assert numbers(store, approved_only=False, since=at.replace(microsecond=1)) == []
    assert numbers(store, approved_only=False, until=at.replace(microsecond=1)) == [1]


def test_order_is_by_time_then_id(path):
    with open_store(f"sqlite:///{path}", clock=lambda: moment("2025-05-28T08:00:00Z")) as store:
        ids = [store.add_job(**new_job(number)) for number in range(20)]
        assert [line["job_id"] for line in exported(store, approved_only=False)] == sorted(ids)


def test_an_export_sees_one_state_of_the_store(store):
    ids = filled(store)
    lines = export_lines(store, ALL)
    head = next(lines)
    store.correct(ids[3], [Edit("set", PERIHAL, "changed meanwhile")], by="reviewer-b")
    assert "changed meanwhile" not in (head + b"".join(lines)).decode()
    assert "changed meanwhile" in b"".join(export_lines(store, ALL)).decode()


DAMAGE = {
    "corrected field": ("UPDATE jobs SET result = replace(result, 'Patroli', 'Razia') WHERE seq = 1", "value_mismatch"),
    "other field": ("UPDATE jobs SET result = replace(result, '8001OOOI', '80010001') WHERE seq = 1", "hash_mismatch"),
    "uncorrected job": ("UPDATE jobs SET result = replace(result, '7706', '7707') WHERE seq = 2", "hash_mismatch"),
    "key added": ("UPDATE jobs SET result = '{\"x\":1,' || substr(result, 2) WHERE seq = 2", "hash_mismatch"),
    "no JSON": ("UPDATE jobs SET result = substr(result, 2) WHERE seq = 1", "bad_json"),
    "old value": ("UPDATE events SET old_value = '\"\"' WHERE job_seq = 1 AND n = 1", "hash_mismatch"),
    "new value": ("UPDATE events SET new_value = '\"\"' WHERE job_seq = 1 AND n = 1", "value_mismatch"),
    "value no JSON": ("UPDATE events SET old_value = '{' WHERE job_seq = 1 AND n = 1", "value_mismatch"),
    "path": ("UPDATE events SET field_path = 'header..x' WHERE job_seq = 1 AND n = 1", "bad_path"),
    "first event gone": ("DELETE FROM events WHERE job_seq = 1 AND n = 1", "hash_mismatch"),
    "last event gone": ("DELETE FROM events WHERE job_seq = 1 AND n = 2", "hash_mismatch"),
    "numbers": ("UPDATE events SET n = 7 WHERE job_seq = 1 AND n = 2", "numbering"),
    "hash": ("UPDATE runs SET initial_sha256 = '00', text_sha256 = '00' WHERE job_seq = 1", "hash_mismatch"),
    "result gone": ("UPDATE jobs SET result = NULL, error = 'lost', status = 'failed' WHERE seq = 1", "no_result"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_flagged_and_the_other_lines_go_on(store, path, damage):
    statement, reason = DAMAGE[damage]
    ids = filled(store)
    sound = exported(store)
    by_hand(path, statement)
    told = []
    lines = [json.loads(line) for line in export_lines(store, ALL, lambda *drift: told.append(drift))][:2]
    ((job_id, drift),) = told
    assert drift.reason == reason
    hit = ids.index(job_id)
    assert lines[hit]["initial_result"] is None
    assert lines[hit]["review_flags"] == ["llm_fallback", "replay_drift"]
    assert lines[1 - hit] == sound[1 - hit]
    assert statistics(store).unreplayable == 1


def test_json_that_means_the_same_is_the_same(store, path):
    filled(store)
    before = exported(store)
    by_hand(path, "UPDATE jobs SET result = replace(result, ':', ' :' || char(10))")
    lines = list(export_lines(store))
    assert [json.loads(line) for line in lines] == before
    assert all(line.count(b"\n") == 1 for line in lines)


def test_a_job_without_a_hash_is_exported_and_counted(store, path):
    filled(store)
    before = exported(store)
    by_hand(path, "UPDATE runs SET initial_sha256 = NULL, text_sha256 = NULL")
    assert exported(store) == before
    assert statistics(store).unverified == 4


def test_a_file_is_whole_or_as_before(store, path, tmp_path):
    filled(store)
    corpus = tmp_path / "corpus.jsonl"
    written = write_corpus(store, corpus)
    plain = corpus.read_bytes()
    assert (written.lines, written.sha256, written.drifts) == (2, sha256_hex(plain), ())
    assert plain == b"".join(export_lines(store))
    assert write_corpus(store, tmp_path / "corpus.jsonl.gz").sha256 == written.sha256
    assert gzip.decompress((tmp_path / "corpus.jsonl.gz").read_bytes()) == plain

    by_hand(path, DAMAGE["corrected field"][0])
    with pytest.raises(FlaggedError, match="1 of 2 letters do not replay"):
        write_corpus(store, corpus, strict=True)
    assert corpus.read_bytes() == plain
    assert len(write_corpus(store, corpus).drifts) == 1
    papers = {f"corpus.jsonl{end}{paper}" for end in ("", ".gz") for paper in ("", ".index.tsv", ".manifest.json")}
    assert {file.name for file in tmp_path.glob("*corpus*")} == papers


def test_statistics(store, path):
    ids = filled(store)
    store.correct(ids[3], [Edit("set", "personel[1].nrp", "80010001")], by="reviewer-a")
    counted = statistics(store)
    assert (counted.total_jobs, counted.approved_jobs) == (5, 2)
    assert (counted.total_corrections, counted.jobs_with_corrections) == (4, 3)
    paths = [PERIHAL, "personel", "personel[0].nrp", "personel[1].nrp"]
    assert counted.top_corrected_fields == tuple(FieldCount(path, 1) for path in paths)
    folded = [("personel[*].nrp", 2), (PERIHAL, 1), ("personel", 1)]
    assert counted.top_corrected_fields_folded == tuple(FieldCount(*count) for count in folded)
    assert (counted.unreplayable, counted.unverified, counted.stale_approvals) == (0, 0, 0)
    assert statistics(store, top=1).top_corrected_fields == counted.top_corrected_fields[:1]
    by_hand(path, "UPDATE jobs SET reviewed_at = '2025-05-28T08:00:00Z' WHERE seq = 1")
    assert statistics(store).stale_approvals == 1


def test_statistics_count_what_the_corpus_shows(store):
    filled(store)
    lines = exported(store, approved_only=False)
    shown = [correction["field_path"] for line in lines for correction in line["corrections"]]
    counted = {field.field_path: field.count for field in statistics(store, top=100).top_corrected_fields}
    assert counted == {path: shown.count(path) for path in shown}


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    def peak(count):
        with open_store(f"sqlite:///{tmp_path}/{count}.db", clock=Ticking()) as store:
            store.add_job(**new_job(0))
            with sqlite3.connect(tmp_path / f"{count}.db") as connection:
                for table in ("jobs", "runs"):
                    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                    key = names[0]
                    own = {key: "n", "job_id": "'job ' || n", "document_sha256": "n"}
                    values = ", ".join(own.get(name, name) for name in names)
                    connection.execute(
                        f"WITH RECURSIVE m(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM m WHERE n < {count}) "
                        f"INSERT INTO {table} SELECT {values} FROM {table}, m WHERE {key} = 1"
                    )
            connection.close()
            assert sum(1 for _ in itertools.islice(samples(store, ALL), 3)) == 3  # statements compiled, caches warm
            tracemalloc.start()
            lines = sum(1 for _ in export_lines(store, ALL))
            size = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert lines == count
        return size

    assert peak(20_000) < peak(1_000) + 100_000


# The command.


def run(*words, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    call = [sys.executable, "-m", "ocr_sprint.tools.export_ground_truth", *map(str, words)]
    return subprocess.run(call, capture_output=True, env=environment, check=False, **options)


def test_the_command_writes_lines_to_a_pipe(store, path):
    filled(store)
    done = run("--store", f"sqlite:///{path}", "--print-stats", "--no-approved-only")
    assert done.returncode == 0
    assert done.stdout == b"".join(export_lines(store, ALL))
    assert json.loads(done.stderr)["total_jobs"] == 5


def test_a_reader_who_has_seen_enough_is_no_error(store, path):
    for number in range(300):
        store.add_job(**new_job(number, ocr_text="x"))
    words = [sys.executable, "-m", "ocr_sprint.tools.export_ground_truth", "--no-approved-only"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OCR_SPRINT_STORE": f"sqlite:///{path}"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert json.loads(process.stdout.readline())["filename"] == "sprint-000.pdf"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.fixture
def command(path, capsysbinary):
    """Run the command in this process; gives the exit code, standard output and standard error."""

    def call(*words):
        code = main(["--store", f"sqlite:///{path}", *map(str, words)])
        said = capsysbinary.readouterr()
        return code, said.out, said.err.decode()

    return call


def test_the_command_writes_a_file_and_prints_statistics(store, command, tmp_path):
    filled(store)
    out = tmp_path / "new folder" / "corpus.jsonl"
    code, data, said = command("--out", out, "--print-stats", "--has-corrections", "--limit", 1)
    assert code == 0
    assert out.read_bytes() == b"".join(export_lines(store, Filters(has_corrections=True, limit=1)))
    assert json.loads(data)["approved_jobs"] == 2
    assert "1 lines, sha256" in said


def test_strict_ends_with_three_and_no_file(store, command, path, tmp_path):
    filled(store)
    by_hand(path, DAMAGE["uncorrected job"][0])
    out = tmp_path / "corpus.jsonl"
    code, data, said = command("--out", out, "--strict")
    assert (code, data, out.exists()) == (3, b"", False)
    assert "1 of 2 letters do not replay" in said
    code, data, said = command("--strict")
    assert (code, data.count(b"\n")) == (3, 1)
    assert "stopped before job" in said
    code, data, said = command("--out", out)
    assert (code, out.read_bytes().count(b"\n")) == (0, 2)
    assert "does not replay: hash_mismatch" in said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--since", "2025-06-01T10:00:00"],
            "--since 2025-06-01T10:00:00 has no time zone: write 2025-06-01T10:00:00Z",
        ),
        (["--until", "soon"], "--until 'soon' is no time"),
        (["--since", "2025-06-02", "--until", "2025-06-01"], "ends before it starts"),
        (["--limit", "-1"], "give 0 or more"),
        (["--limit", "many"], "invalid int value"),
        (["--aproved-only"], "unrecognized arguments"),
        (["--out", "."], "is a folder"),
    ],
)
@pytest.mark.usefixtures("store")
def test_wrong_words_are_usage_errors(command, words, problem):
    code, data, said = command(*words)
    assert (code, data) == (2, b"")
    assert problem in said


def test_a_date_is_its_first_moment_in_utc(store, command):
    store.add_job(**new_job(1))
    for words, lines in [
        (["--since", "2025-05-28"], 1),
        (["--since", "2025-05-29"], 0),
        (["--until", "2025-05-28"], 0),
        (["--until", "2025-05-29"], 1),
        (["--since", "2025-05-28T15:00:00+07:00"], 1),
        (["--since", "2025-05-28T15:00:01+07:00"], 0),
    ]:
        assert command("--no-approved-only", *words)[1].count(b"\n") == lines, words


def test_a_missing_store_is_not_an_empty_corpus(tmp_path, capsys):
    assert main(["--store", f"sqlite:///{tmp_path}/stroe.db"]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
