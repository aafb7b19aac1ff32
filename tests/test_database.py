"""What the database itself promises on both backends: durable, append-only, one order of text, no harm to others."""

import sqlite3
import threading

import pytest
from review_samples import Ticking, new_job
from sqlalchemy import Text, select, text
from sqlalchemy.engine import make_url

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.review import database as database_module
from ocr_sprint.review.database import open_database, reading, writing
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.schema import (
    ERASABLE,
    PERMANENT,
    approvals,
    archived_results,
    events,
    exports,
    jobs,
    metadata,
    properties,
    runs,
    second_reviews,
    tombstones,
)
from ocr_sprint.review.store import open_store
from postgres_server import connect, new_database

NOW = "2025-05-30T14:00:00Z"


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


@pytest.fixture
def postgres(new_url):
    return new_url("postgresql")


def execute(store, statement, *values):
    with writing(store.engine) as connection:
        return connection.execute(text(statement) if isinstance(statement, str) else statement, *values)


# --- which store is meant


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mysql://reviewer@db.example/corpus", "is no store: write sqlite:///FILE"),
        ("postgresql+asyncpg://reviewer@db.example/corpus", "is no store: write sqlite:///FILE"),
        ("sqlite+aiosqlite:///store.db", "is no store: write sqlite:///FILE"),
        ("corpus.db", "'corpus.db' is no store: write sqlite:///FILE"),
        ("sqlite:///:memory:", "is no store"),
        ("sqlite:///no/such/folder/store.db", "there is no folder no/such/folder"),
    ],
)
def test_urls_that_name_no_store(name, message):
    with pytest.raises(UsageError, match=message):
        open_store(name)


@pytest.mark.parametrize(
    "name",
    [
        "mysql://reviewer:rahasia@db.example/corpus",
        "postgresql://reviewer:rahasia@127.0.0.1:9/corpus?connect_timeout=2",
        "postgresql://reviewer@127.0.0.1:9/corpus?connect_timeout=2&password=rahasia",
    ],
)
def test_a_password_is_not_repeated(name):
    with pytest.raises((UsageError, DataError)) as caught:
        open_store(name)
    assert "rahasia" not in str(caught.value)
    assert "corpus" in str(caught.value)


def test_plain_postgresql_urls_will_do(postgres):
    plain = postgres.replace("postgresql+psycopg:", "postgresql:")
    open_store(plain).close()
    with open_store(plain, create=False) as store:
        assert list(store.jobs()) == []


def test_files_of_other_programs_stay_untouched(tmp_path):
    foreign = tmp_path / "photos.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()
    before = foreign.read_bytes()
    with pytest.raises(DataError, match="is no store of this version"):
        open_store(f"sqlite:///{foreign}")
    letter = tmp_path / "letter.pdf"
    letter.write_bytes(b"%PDF-1.7 " + bytes(4096))
    with pytest.raises(DataError, match="file is not a database"):
        open_store(f"sqlite:///{letter}")
    assert foreign.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.pdf", "photos.db"]


def test_a_database_with_other_tables_is_shared_unless_the_names_collide(postgres):
    with connect(make_url(postgres)) as connection:
        connection.execute("CREATE TABLE jobs (name TEXT)")
        with pytest.raises(DataError, match="is no store of this version"):
            open_store(postgres)
        connection.execute("ALTER TABLE jobs RENAME TO vacancies")
        with open_store(postgres) as store:
            store.add_job(**new_job(1))
        assert connection.execute("SELECT count(*) FROM vacancies").fetchone() == (0,)


def test_a_database_that_cannot_hold_every_letter_is_refused(postgres_url):
    with connect(postgres_url) as connection:
        connection.execute("CREATE DATABASE ocr_sprint_latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            url = postgres_url.set(database="ocr_sprint_latin").render_as_string(hide_password=False)
            with pytest.raises(DataError, match="is encoded in LATIN1; make a database in UTF8"):
                open_store(url)
        finally:
            connection.execute("DROP DATABASE ocr_sprint_latin WITH (FORCE)")


def test_readers_make_nothing(tmp_path, postgres):
    with pytest.raises(UsageError, match="there is no store"):
        open_store(f"sqlite:///{tmp_path}/stroe.db", create=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match=r"there is no store in postgresql://.*; name the one that the letters are in"):
        open_store(postgres, create=False)
    with connect(make_url(postgres)) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_the_environment_names_the_store(url, tmp_path, monkeypatch):
    monkeypatch.setenv("OCR_SPRINT_STORE", url)
    with open_store() as store:
        job_id = store.add_job(**new_job(1))
    with open_store(url, create=False) as store:
        assert [job.job_id for job in store.jobs()] == [job_id]
    monkeypatch.delenv("OCR_SPRINT_STORE")
    monkeypatch.chdir(tmp_path)
    with open_store() as store:
        assert list(store.jobs()) == []
    assert (tmp_path / "ocr_sprint.db").exists()


def test_many_openers_of_an_empty_database_make_one_store(new_url, backend):
    for _ in range(8):
        url, names, barrier = new_url(backend), [], threading.Barrier(6)

        def opened(url=url, names=names, barrier=barrier):
            barrier.wait()
            with open_store(url) as store, reading(store.engine) as connection:
                names.append(connection.execute(select(properties.c.value)).scalar_one())

        threads = [threading.Thread(target=opened) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(names) == 6 and len(set(names)) == 1


def test_a_file_that_nobody_lets_go_of_is_named(new_url, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_MS", 50)
    url = new_url("sqlite")
    path = url.removeprefix("sqlite:///")
    open_store(url).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM jobs").fetchall()
        with pytest.raises(DataError, match=r"store.db cannot be used: database is locked"):
            open_store(url)
    connection.close()
    open_store(url).close()


# --- durable


def test_writes_are_durable_and_references_enforced(new_url):
    with open_store(new_url("sqlite")) as store, store.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "secure_delete": 1,
    }


@pytest.mark.parametrize(("server", "ours"), [("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")])
def test_a_server_that_acknowledges_too_early_is_told_not_to(postgres, server, ours):
    name = make_url(postgres).database
    with connect(make_url(postgres)) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = '{server}'")
    with open_store(postgres) as store:
        for transaction in (reading, writing):
            with transaction(store.engine) as connection:
                shown = [
                    connection.execute(text(f"SHOW {name}")).scalar() for name in ("synchronous_commit", "lock_timeout")
                ]
            assert shown == [ours, "5s"]


def test_references_are_checked_again_after_tables_were_rebuilt(url):
    with open_store(url) as store:
        with database_module.rebuilding(store.engine):
            pass
        run = {
            "job_seq": 7,
            "run": 1,
            "engine": "",
            "finished_at": NOW,
            "review_flags": "[]",
            "prev_hash": "",
            "hash": "",
        }
        with pytest.raises(DataError, match=r"(?i)foreign key"):
            execute(store, runs.insert().values(run))
        if store.engine.dialect.name == "sqlite":
            broken = pytest.raises(DataError, match="rows that refer to nothing; it was left as it is")
            with broken, database_module.rebuilding(store.engine) as connection:
                connection.execute(runs.insert().values(run))
        with reading(store.engine) as connection:
            assert connection.execute(runs.select()).all() == []


def test_a_server_that_was_restarted_is_found_again(postgres):
    with open_store(postgres) as store:
        job_id = store.add_job(**new_job(1))
        with connect(make_url(postgres)) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert store.approve(job_id, by="reviewer-a").approved


def test_a_writer_waits_for_another_and_not_for_ever(url, monkeypatch):
    monkeypatch.setattr(database_module, "_PRAGMAS", ("foreign_keys = ON", "busy_timeout = 100"))
    monkeypatch.setattr(database_module, "_SETTINGS", ("SELECT set_config('lock_timeout', '100ms', false)",))
    with open_store(url) as store:
        job_id = store.add_job(**new_job(1))
        with writing(store.engine) as connection:
            connection.execute(select(jobs).with_for_update()).all()
            with pytest.raises(
                DataError, match=r"cannot be used: (database is locked|canceling statement due to lock)"
            ):
                store.approve(job_id, by="reviewer-a")
        assert store.approve(job_id, by="reviewer-a").approved


def test_a_reader_sees_one_state(store):
    job_id = store.add_job(**new_job(1))
    with reading(store.engine) as connection:
        before = connection.execute(select(jobs.c.version)).scalar_one()
        store.approve(job_id, by="reviewer-a")
        assert connection.execute(select(jobs.c.version)).scalar_one() == before == 1
    assert store.job(job_id).version == 2


def test_a_reader_of_postgresql_cannot_write(postgres):
    with open_store(postgres) as store:
        with pytest.raises(DataError, match="read-only transaction"), reading(store.engine) as connection:
            connection.execute(jobs.delete())
        # And the next one on the same connection can.
        assert execute(store, jobs.delete()).rowcount == 0


def test_what_a_failed_write_did_is_undone(store):
    with pytest.raises(KeyboardInterrupt), writing(store.engine) as connection:
        connection.execute(properties.insert().values(name="half", value="done"))
        raise KeyboardInterrupt
    with reading(store.engine) as connection:
        assert connection.execute(select(properties.c.name)).scalars().all() == ["store_id"]


# --- append-only


def everything(store, number):
    """A job with a row in every table that can only grow; gives its `seq`."""
    job_id = store.add_job(**new_job(number))
    store.approve(job_id, by="reviewer-a")
    store.add_job(**new_job(number, engine="rapidocr"), rerun=True)
    store.correct(job_id, [Edit("set", "header.perihal", "a")], by="reviewer-a")
    with writing(store.engine) as connection:
        seq = connection.execute(select(jobs.c.seq).where(jobs.c.job_id == job_id)).scalar_one()
        answer = {"job_seq": seq, "n": 1, "run": 1, "approval": 1, "answer": "{}", "by": "b", "at": NOW, "agrees": True}
        connection.execute(
            second_reviews.insert().values(answer | {"differences": "[]", "prev_hash": "0", "hash": "1"})
        )
    return seq


def grave(seq):
    return {
        "job_seq": seq,
        "job_id": f"job {seq}",
        "erased_at": NOW,
        "by": "a",
        "change_xid": 0,
        "change_seq": 10**6 + seq,
    }


RECORD = {"at": NOW, "via": "cli", "filters": "{}", "lines": 0, "sha256": "00"}


def test_the_past_cannot_be_changed(store):
    everything(store, 1)
    execute(store, exports.insert().values(RECORD))
    execute(store, tombstones.insert().values(grave(77)))
    for table in (*ERASABLE, *PERMANENT):
        assert table.name in ("exports", "tombstones") or "job_seq" in table.columns
        key = next(iter(table.primary_key))
        attempts = [table.update().values({key.name: key}), table.delete()]
        with reading(store.engine) as connection:
            rows = connection.execute(table.select()).mappings().all()
        if store.engine.dialect.name == "sqlite":
            attempts.append(table.insert().prefix_with("OR REPLACE").values(dict(rows[0])))
        else:
            attempts.append(f"TRUNCATE {table.name} CASCADE")
        for attempt in attempts:
            with pytest.raises(DataError, match="are append-only"):
                execute(store, attempt)
        with reading(store.engine) as connection:
            assert connection.execute(table.select()).mappings().all() == rows != []


def test_only_an_erased_job_can_go(store):
    gone, other = everything(store, 1), everything(store, 2)
    execute(store, tombstones.insert().values(grave(gone)))
    order = (second_reviews, approvals, events, archived_results, runs)
    assert set(order) == set(ERASABLE)
    for table in order:
        with pytest.raises(DataError, match="are append-only"):
            execute(store, table.delete())
        with pytest.raises(DataError, match="are append-only"):
            execute(store, table.update().where(table.c.job_seq == gone).values(job_seq=gone))
        assert execute(store, table.delete().where(table.c.job_seq == gone)).rowcount > 0
    execute(store, jobs.delete().where(jobs.c.seq == gone))
    with reading(store.engine) as connection:
        assert connection.execute(select(runs.c.job_seq).distinct()).scalars().all() == [other]


def test_a_job_with_a_past_cannot_be_deleted(store):
    everything(store, 1)
    with pytest.raises(DataError, match=r"(?i)foreign key"):
        execute(store, jobs.delete())


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"result": None}, "ck_jobs_result"),
        ({"status": "failed"}, "ck_jobs_"),
        ({"status": "lost"}, "ck_jobs_"),
        ({"error": "encrypted"}, "ck_jobs_error"),
        ({"source_kind": "fax"}, "ck_jobs_source_kind"),
        ({"head": None}, "(?i)not.null"),
    ],
)
def test_a_job_is_what_its_status_says(store, change, rule):
    store.add_job(**new_job(1))
    with pytest.raises(DataError, match=rule):
        execute(store, jobs.update().values(change))


# --- one order of text


def test_text_has_one_order_everywhere(postgres):
    """PostgreSQL sorts as the server's language does, unless a column says otherwise; every one of ours does."""
    with open_store(postgres) as store, reading(store.engine) as connection:
        query = """SELECT table_name || '.' || column_name, collation_name FROM information_schema.columns
                   WHERE table_schema = 'public' AND data_type = 'text'"""
        found = dict(connection.execute(text(query)).all())
    texts = {f"{table}.{column.name}" for table in metadata.tables.values() for column in table.columns
             if isinstance(column.type, Text)}  # fmt: skip
    assert found == dict.fromkeys(texts, "C") and len(texts) > 70


def test_names_sort_by_code_point(store):
    names = ["a-b", "A-B", "a-c", "ab", "b", "B", "é", "Z", "z", "é"]
    for number, name in enumerate(names):
        job = new_job(number, {"header": {"satuan": name}})
        store.add_job(**job)
    with reading(store.engine) as connection:
        found = connection.execute(select(jobs.c.satuan).order_by(jobs.c.satuan)).scalars().all()
    assert found == sorted(names)


# --- the feed of changes after a move


def test_a_store_that_was_restored_on_another_server_goes_on(postgres):
    with open_store(postgres, clock=Ticking()) as store:
        ids = [store.add_job(**new_job(number)) for number in range(4)]
        store.approve(ids[1], by="reviewer-a")
        execute(store, tombstones.insert().values(grave(77) | {"change_xid": 1}))
        with reading(store.engine) as connection:
            name = connection.execute(select(properties.c.value)).scalar_one()
        # On the server that it was dumped on, a billion transactions have been.
        execute(store, jobs.update().values(change_xid=jobs.c.change_xid + 10**9))
    with open_store(postgres, create=False) as store, reading(store.engine) as connection:
        assert connection.execute(select(properties.c.value)).scalar_one() == name
    with open_store(postgres) as store:
        with reading(store.engine) as connection:
            assert connection.execute(select(properties.c.value)).scalar_one() != name
            settled = "change_xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
            places = connection.execute(
                text(f"SELECT job_id FROM jobs WHERE {settled} ORDER BY change_xid, change_seq")
            )
            assert places.scalars().all() == [ids[0], ids[2], ids[3], ids[1]]
            assert connection.execute(select(tombstones.c.change_seq)).scalar_one() == 1
        store.approve(ids[0], by="reviewer-a")
        with reading(store.engine) as connection:
            last = connection.execute(
                select(jobs.c.job_id).order_by(jobs.c.change_xid.desc(), jobs.c.change_seq.desc())
            )
            assert last.scalars().first() == ids[0]
        with pytest.raises(DataError, match="append-only"):
            execute(store, tombstones.update().values(by="b"))
    with open_store(postgres) as store, reading(store.engine) as connection:
        assert connection.execute(select(jobs.c.change_seq).where(jobs.c.job_id == ids[0])).scalar_one() == 6


def test_every_database_of_a_test_is_empty_and_goes(postgres_url):
    with new_database(postgres_url) as url:
        open_database(url).dispose()
        name = make_url(url).database
    with connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_database WHERE datname = %s", [name]).fetchone() == (0,)


def test_a_folder_that_may_not_be_written_is_named(monkeypatch):
    # The system's own folder refuses the file even to root, whom `os.access` alone would let pass.
    monkeypatch.setattr("os.access", lambda place, _mode: str(place) != "/proc")
    with pytest.raises(UsageError, match=r"store /proc/x\.db cannot be used: /proc: Permission denied; change who"):
        open_database("sqlite:////proc/x.db")
    monkeypatch.undo()
    with pytest.raises(DataError, match="unable to open database file"):  # nothing is guessed where it is not known
        open_database("sqlite:////proc/x.db")
