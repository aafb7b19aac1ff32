"""The lines of a corpus: golden bytes, filters, an independent replay of every line, damage, memory, statistics."""

import itertools
import json
import tempfile
import tracemalloc
from contextlib import closing
from datetime import datetime

import orjson
import pytest
from export_samples import DAMAGE, by_hand, filled
from hypothesis import given, settings
from hypothesis import strategies as st
from review_samples import Ticking, corrections, histories, new_job, results, values

from ocr_sprint.core.canonical import canonical, encode, sha256_hex
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.export import Filters, Sample, export_lines, ground_truth_line, rebuild, samples
from ocr_sprint.review.filters import ALL
from ocr_sprint.review.lines import _undo_in_place
from ocr_sprint.review.replay import Drift, Event, lower, prove, reverse, same, states
from ocr_sprint.review.schema import metadata
from ocr_sprint.review.statistics import FieldCount, statistics
from ocr_sprint.review.store import open_store

PERIHAL = "header.perihal"
IDENTITY = ["job_id", "filename", "source_kind", "approved", "reviewed_by", "reviewed_at", "created_at"]
KEYS = [*IDENTITY, "initial_result", "final_result", "corrections", "review_flags", "confidence"]


def moment(text):
    return datetime.fromisoformat(text)


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def exported(store, **filters):
    return [json.loads(line) for line in export_lines(store, Filters(**filters))]


def numbers(store, **filters):
    return [int(line["filename"][7:10]) for line in exported(store, **filters)]


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
            event = data.draw(corrections(store.job(job_id).result, n + 1))
            store.correct(job_id, [Edit(event.op, event.field_path, event.new_value)], by="reviewer-a")
        (line,) = exported(store, approved_only=False)
        first_sha256 = store.job(job_id).initial_sha256
    assert line["review_flags"] == ["llm_fallback"]
    assert sha256_hex(canonical(line["initial_result"])) == first_sha256
    assert sha256_hex(canonical(undone(line))) == first_sha256


@given(histories())
def test_the_short_way_gives_what_the_long_way_gives(history):
    initial, events, final = history
    text = encode(final).decode()
    proofs = {"initial_sha256": sha256_hex(canonical(initial)), "text_sha256": sha256_hex(encode(initial))}
    sample = Sample(1, "", "", "pdf", False, None, None, "", text, "[]", None, **proofs)
    short = orjson.loads(text)
    if events and _undo_in_place(short, events) is not None:
        assert encode(short) == encode(reverse(final, events))
        assert encode(orjson.loads(text)) == text.encode()
    rebuilt = rebuild(sample, events)
    assert rebuilt.drift is None
    assert same(json.loads(orjson.dumps(rebuilt.initial)), initial)
    assert orjson.dumps(rebuilt.final).decode() == text
    lowered = lower(events, states(final, events))
    assert orjson.dumps(list(map(list, rebuilt.corrections))) == orjson.dumps(list(map(list, lowered)))


@given(histories().filter(lambda history: history[1]), st.data())
def test_whatever_is_changed_in_a_history_is_seen_on_either_way(history, data):
    initial, events, final = history
    proofs = {"initial_sha256": sha256_hex(canonical(initial)), "text_sha256": sha256_hex(encode(initial))}
    place = data.draw(st.integers(0, len(events) - 1))
    name = data.draw(st.sampled_from(["n", "op", "field_path", "old_value", "new_value", "run"]))
    kinds = {"n": st.integers(1, 9), "run": st.integers(1, 3), "op": st.sampled_from(["set", "add", "remove"])}
    kinds["field_path"] = st.sampled_from([event.field_path for event in events] + ["nama", "nama.x", "a[0]", "x..y"])
    other = [*events]
    other[place] = events[place]._replace(**{name: data.draw(kinds.get(name, values))})
    sample = Sample(1, "", "", "pdf", False, None, None, "", encode(final).decode(), "[]", None, **proofs)
    rebuilt = rebuild(sample, other)
    long_way = states(final, other)
    drift = long_way if isinstance(long_way, Drift) else prove(long_way[0], proofs["initial_sha256"])
    assert (rebuilt.drift is None) == (drift is None)
    if drift is not None:
        assert rebuilt.drift == drift


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


def test_order_is_by_time_then_id(url):
    with open_store(url, clock=lambda: moment("2025-05-28T08:00:00Z")) as store:
        ids = [store.add_job(**new_job(number)) for number in range(20)]
        assert [line["job_id"] for line in exported(store, approved_only=False)] == sorted(ids)


def test_an_export_sees_one_state_of_the_store(store):
    ids = filled(store)
    lines = export_lines(store, ALL)
    head = next(lines)
    store.correct(ids[3], [Edit("set", PERIHAL, "changed meanwhile")], by="reviewer-b")
    assert "changed meanwhile" not in (head + b"".join(lines)).decode()
    assert "changed meanwhile" in b"".join(export_lines(store, ALL)).decode()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_flagged_and_the_other_lines_go_on(store, damage):
    statement, reason = DAMAGE[damage]
    ids = filled(store)
    sound = exported(store)
    by_hand(store, statement)
    told = []
    lines = [json.loads(line) for line in export_lines(store, ALL, lambda *drift: told.append(drift))][:2]
    ((job_id, drift),) = told
    assert drift.reason == reason
    hit = ids.index(job_id)
    assert lines[hit]["initial_result"] is None
    assert lines[hit]["review_flags"] == ["llm_fallback", "replay_drift"]
    assert lines[1 - hit] == sound[1 - hit]
    assert statistics(store).unreplayable == 1


def test_json_that_means_the_same_is_the_same(store):
    filled(store)
    before = exported(store)
    by_hand(store, "UPDATE jobs SET result = replace(result, ':', ' :\n')")
    lines = list(export_lines(store))
    assert [json.loads(line) for line in lines] == before
    assert all(line.count(b"\n") == 1 for line in lines)


def test_a_job_without_a_hash_is_exported_and_counted(store):
    filled(store)
    before = exported(store)
    by_hand(store, "UPDATE runs SET initial_sha256 = NULL, text_sha256 = NULL")
    assert exported(store) == before
    assert statistics(store).unverified == 4


def test_statistics(store):
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
    by_hand(store, "UPDATE jobs SET reviewed_at = '2025-05-28T08:00:00Z' WHERE seq = 1")
    assert statistics(store).stale_approvals == 1


def test_statistics_count_what_the_corpus_shows(store):
    filled(store)
    lines = exported(store, approved_only=False)
    shown = [correction["field_path"] for line in lines for correction in line["corrections"]]
    counted = {field.field_path: field.count for field in statistics(store, top=100).top_corrected_fields}
    assert counted == {path: shown.count(path) for path in shown}


def multiplied(store, count):
    """The store's one letter so many times."""
    for name, key in (("jobs", "seq"), ("runs", "job_seq")):
        own = {key: "n", "job_id": "'job ' || n", "document_sha256": "CAST(n AS TEXT)"}
        names = [column.name for column in metadata.tables[name].columns]
        values = ", ".join(own.get(column, column) for column in names)
        numbers = f"WITH RECURSIVE m(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM m WHERE n < {count})"
        by_hand(
            store, f"{numbers} INSERT INTO {name} ({', '.join(names)}) SELECT {values} FROM {name}, m WHERE {key} = 1"
        )


def test_memory_does_not_grow_with_the_corpus(new_url, backend):
    def peak(count):
        with open_store(new_url(backend), clock=Ticking()) as store:
            store.add_job(**new_job(0))
            multiplied(store, count)
            with closing(samples(store, ALL)) as few:  # statements compiled, caches warm
                assert sum(1 for _ in itertools.islice(few, 3)) == 3
            tracemalloc.start()
            lines = sum(1 for _ in export_lines(store, ALL))
            size = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert lines == count
        return size

    assert peak(20_000) < peak(1_000) + 100_000
