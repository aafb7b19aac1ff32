"""Any single change of a chain is found: in memory for any chain, and in a store for every stored value."""

import hashlib
import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_samples import Ticking, new_job, scalars
from sqlalchemy import Boolean, Float, Integer, select, text

from ocr_sprint.core.canonical import canonical
from ocr_sprint.review.chain import GENESIS, ChainFault, Entry, chain_order, entry_hash, next_entry, verify_chain
from ocr_sprint.review.database import reading, writing
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.schema import ERASABLE, archived_results, jobs
from ocr_sprint.review.store import open_store
from ocr_sprint.review.trail import job_entries

kinds = st.sampled_from(["runs", "events", "approvals", "second_reviews"])
fields = st.dictionaries(st.sampled_from(["n", "run", "by", "at", "answer"]), scalars, max_size=4)


def numbered(content):
    """A chain of entries, and the hash of the newest."""
    entries, head = [], GENESIS
    for number, (kind, values) in enumerate(content, 1):
        entries.append(next_entry(head, kind, {**values, "run" if kind == "runs" else "n": number}))
        head = entries[-1].hash
    return entries, head


chains = st.lists(st.tuples(kinds, fields), max_size=8).map(numbered)


def test_the_hash_is_what_the_page_says():
    """Written out once more, with nothing but the standard library."""
    plain = json.dumps(
        ["events", {"job_id": "c5da6747", "n": 1, "reason": "é"}], separators=(",", ":"), ensure_ascii=False
    )
    expected = hashlib.sha256(("0" * 64 + "\n" + plain).encode()).hexdigest()
    assert entry_hash(GENESIS, "events", {"reason": "é", "n": 1, "job_id": "c5da6747"}) == expected


@given(chains, st.randoms(use_true_random=False))
def test_a_chain_holds_in_any_order(chain, random):
    entries, head = chain
    shuffled = random.sample(entries, len(entries))
    assert verify_chain(shuffled, head) is None
    assert chain_order(shuffled) == entries


@given(chains.filter(lambda chain: chain[0]), st.data())
def test_any_change_of_any_entry_is_found(chain, data):
    entries, head = chain
    place = data.draw(st.integers(0, len(entries) - 1))
    entry = entries[place]
    other = data.draw(
        st.one_of(
            st.builds(lambda kind: entry._replace(kind=kind), kinds),
            st.builds(lambda more: entry._replace(fields={**entry.fields, **more}), fields),
            st.sampled_from(list(entry.fields)).map(
                lambda name: entry._replace(fields={key: value for key, value in entry.fields.items() if key != name})
            ),
            st.sampled_from([GENESIS, "f" * 64, head]).map(lambda value: entry._replace(prev_hash=value)),
            st.sampled_from([GENESIS, "f" * 64, *(known.hash for known in entries)]).map(
                lambda value: entry._replace(hash=value)
            ),
        )
    )
    same = (other.kind, canonical(dict(other.fields))) == (entry.kind, canonical(dict(entry.fields)))
    if same and other[2:] == entry[2:]:
        return
    assert verify_chain([*entries[:place], other, *entries[place + 1 :]], head) is not None


@given(chains.filter(lambda chain: chain[0]), st.data())
def test_an_entry_that_is_missing_or_stray_is_found(chain, data):
    entries, head = chain
    place = data.draw(st.integers(0, len(entries) - 1))
    fault = verify_chain(entries[:place] + entries[place + 1 :], head)
    assert fault == ChainFault("missing", entries[place].hash)
    stray = next_entry(entries[place].prev_hash, "events", {"n": 99})
    fault = verify_chain([*entries, stray], head)
    assert fault == ChainFault("stray", stray.hash, "events", 99)
    twice = verify_chain([*entries, entries[place]], head)
    assert (twice.reason, twice.hash) == ("stray", entries[place].hash)
    # Whoever cuts the end off has to move the head too, and a copy of the head that lies elsewhere tells.
    cut = entries[: place + 1]
    assert verify_chain(cut, cut[-1].hash) is None


def test_a_forged_past_with_hashes_that_fit_has_another_head():
    entries, head = numbered([("runs", {}), ("events", {"by": "a"}), ("approvals", {"by": "b"})])
    forged, other = numbered([("runs", {}), ("events", {"by": "c"}), ("approvals", {"by": "b"})])
    assert verify_chain(forged, other) is None
    assert other != head
    assert verify_chain([*entries[:1], *forged[1:]], head) == ChainFault("missing", head)


def test_a_loop_ends():
    loop = Entry("events", {"n": 1}, "a" * 64, "b" * 64)
    assert verify_chain([loop, loop._replace(prev_hash="b" * 64, hash="a" * 64)], "b" * 64).reason == "altered"
    assert chain_order([loop._replace(prev_hash=GENESIS, hash=GENESIS)]) != []


# --- in a store


def busy(store):
    """A job with every kind of entry but second reviews, which have their own page; gives its id."""
    job_id = store.add_job(**new_job(1))
    store.correct(job_id, [Edit("set", "header.perihal", "é\n😀"), Edit("remove", "personel[1]")], by="reviewer-é")
    store.approve(job_id, by="reviewer-b", actor="token")
    store.undo(job_id, by="reviewer-a", reason="misread")
    store.add_job(**new_job(1, confidence=1, engine="rapidocr"), rerun=True)
    store.correct(job_id, [Edit("set", "personel[0].nrp", 1.0)], by="reviewer-b")
    store.approve(job_id, by="reviewer-b")
    store.add_job(**new_job(2))
    return job_id


def fault(store, job_id):
    with reading(store.engine) as connection:
        return verify_chain(*job_entries(connection, job_id))


def no_triggers(store):
    """What the owner of the database can do."""
    with writing(store.engine) as connection:
        if store.engine.dialect.name == "postgresql":
            for table in ERASABLE:
                connection.execute(text(f"ALTER TABLE {table.name} DISABLE TRIGGER ALL"))
        else:
            for name in (
                connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
            ):
                connection.execute(text(f"DROP TRIGGER {name}"))


def changed(column, value):
    """Another value that the column can hold."""
    if isinstance(column.type, Boolean):
        return not value
    if isinstance(column.type, Integer | Float):
        return (value or 0) + 1
    if column.name == "op":
        return "add" if value == "set" else "set"
    if column.name == "action":
        return "revoke" if value == "approve" else "approve"
    return f"{value or ''} "


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def test_every_single_change_of_a_stored_value_is_found(store):
    job_id = busy(store)
    no_triggers(store)
    assert fault(store, job_id) is None
    count = 0
    for table in ERASABLE:
        if table is archived_results:  # its results are proved by replay
            continue
        with reading(store.engine) as connection:
            rows = connection.execute(
                select(table).join(jobs, jobs.c.seq == table.c.job_seq).where(jobs.c.job_id == job_id)
            ).mappings().all()  # fmt: skip
        for row in rows:
            key = [column == row[column.name] for column in table.primary_key]
            for column in table.columns:
                if column.primary_key or column.name in ("run", "batch", "reverts"):
                    continue  # the tables' own rules stand before these
                with writing(store.engine) as connection:
                    connection.execute(
                        table.update().where(*key).values({column.name: changed(column, row[column.name])})
                    )
                assert fault(store, job_id) is not None, (table.name, dict(row), column.name)
                with writing(store.engine) as connection:
                    connection.execute(table.update().where(*key).values({column.name: row[column.name]}))
                count += 1
    assert count == 91
    with reading(store.engine) as connection:
        entries, head = job_entries(connection, job_id)
    assert verify_chain(entries, head) is None
    for place, entry in enumerate(entries):
        for name in {"job_id", "n", "run", "batch", "reverts"} & set(entry.fields):
            other = entry._replace(fields={**entry.fields, name: 7})
            assert verify_chain([*entries[:place], other, *entries[place + 1 :]], head).reason == "altered"


def test_every_row_that_is_taken_out_is_found(store):
    job_id = busy(store)
    no_triggers(store)
    with reading(store.engine) as connection:
        entries, head = job_entries(connection, job_id)
    random = Random(5)
    for entry in random.sample(entries, len(entries)):
        left = [known for known in entries if known is not entry]
        assert verify_chain(left, head) == ChainFault("missing", entry.hash)
    with writing(store.engine) as connection:
        connection.execute(text("DELETE FROM approvals WHERE n = 2"))
    assert fault(store, job_id).reason == "missing"


def test_the_head_of_a_job_is_its_newest_entry(store):
    job_id = busy(store)
    with reading(store.engine) as connection:
        entries, head = job_entries(connection, job_id)
    assert [entry.hash for entry in chain_order(entries)][-1] == head
    assert chain_order(entries)[0].prev_hash == GENESIS
    assert all(entry.fields["job_id"] == job_id for entry in entries)
    assert not any({"job_seq", "hash", "prev_hash"} & set(entry.fields) for entry in entries)
    stamps = [
        [entry.fields.get(name) for name in ("at", "corrected_at", "finished_at")] for entry in chain_order(entries)
    ]
    times = [next(filter(None, stamp)) for stamp in stamps]
    assert times == sorted(times)


def test_both_backends_write_the_same_chain(new_url):
    heads = []
    for backend in ("sqlite", "postgresql"):
        with open_store(new_url(backend), clock=Ticking()) as store:
            job_id = busy(store)
            with reading(store.engine) as connection:
                heads.append(job_entries(connection, job_id)[1])
    assert heads[0] == heads[1]
