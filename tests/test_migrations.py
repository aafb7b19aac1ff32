"""Stores move between versions of the tables on both backends, and the corpus stays the same to the byte."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from review_samples import Ticking, new_job
from sqlalchemy import MetaData, Table, inspect, select, text

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.review import migrate as migrate_module
from ocr_sprint.review.chain import verify_chain
from ocr_sprint.review.database import OLDER, SCHEMA, open_database, reading, rebuilding, stored_schema, writing
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.export import Filters, export_lines
from ocr_sprint.review.migrate import VERSIONS, migrate
from ocr_sprint.review.schema import approvals, archived_results, events, jobs, metadata, properties, runs
from ocr_sprint.review.store import open_store
from ocr_sprint.review.trail import job_entries
from ocr_sprint.review.verify_database import verify_database
from ocr_sprint.tools.upgrade import main, upgrade

# What the program of the first version wrote, and the sha256 of the corpora that it exported from it.
OLD = json.loads((Path(__file__).parent / "data" / "three_tables.json").read_text())
FILTERS = {"all": Filters(approved_only=False), "approved": Filters()}


def corpora(store):
    return {
        name: hashlib.sha256(b"".join(export_lines(store, filters))).hexdigest() for name, filters in FILTERS.items()
    }


def empty(url):
    """A database without any table of ours, past the guard that would make them."""
    engine = open_database(url)
    with rebuilding(engine) as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
        if engine.dialect.name == "postgresql":
            for function in ("refuse_change", "refuse_delete"):
                connection.execute(text(f"DROP FUNCTION {function}"))
    return engine


def migrated(url, version):
    """A database that was brought to a version from nothing, by the migrations alone."""
    engine = empty(url)
    with rebuilding(engine) as connection:
        migrate_module.versions.create(connection)
        migrate_module._run(connection, version, back=False)
    return engine


@pytest.fixture
def old(url):
    """A store of the first version, as its program left it."""
    engine = migrated(url, "three_tables")
    with rebuilding(engine) as connection:
        for name in ("jobs", "runs", "events"):
            table = Table(name, MetaData(), autoload_with=connection)
            connection.execute(table.insert(), OLD[name])
        if engine.dialect.name == "sqlite":  # that program knew nothing of alembic
            connection.execute(text("DROP TABLE alembic_version"))
            connection.execute(text("PRAGMA user_version = 1"))
        else:
            connection.execute(text("SELECT setval('jobs_seq_seq', (SELECT max(seq) FROM jobs))"))
    engine.dispose()
    return url


def rows(engine, table):
    with reading(engine) as connection:
        found = connection.execute(Table(table, MetaData(), autoload_with=connection).select()).mappings()
        return sorted((dict(row) for row in found), key=lambda row: tuple(row.values())[:2])


def chains_hold(store):
    with reading(store.engine) as connection:
        return [
            verify_chain(*job_entries(connection, job_id)) for (job_id,) in connection.execute(select(jobs.c.job_id))
        ]


def test_a_store_of_the_first_version_moves_when_it_is_opened(old):
    with open_store(old) as store:
        assert corpora(store) == OLD["corpus_sha256"]
        assert chains_hold(store) == [None] * len(OLD["jobs"])
        assert list(verify_database(store)) == []
        with reading(store.engine) as connection:
            assert stored_schema(connection) == SCHEMA
            place = select(jobs.c.seq).order_by(jobs.c.change_xid, jobs.c.change_seq)
            assert connection.execute(place).scalars().all() == [
                job["seq"] for job in sorted(OLD["jobs"], key=lambda job: (job["changed_at"], job["seq"]))
            ]
            standing = connection.execute(
                select(*(approvals.c[name] for name in ("job_seq", "run", "after", "by", "at")))
            ).all()
            units = dict(connection.execute(select(jobs.c.seq, jobs.c.satuan)).all())
        last = {event["job_seq"]: event["n"] for event in OLD["events"]}
        assert sorted(standing) == [
            (job["seq"], job["run"], last.get(job["seq"], 0), job["reviewed_by"], job["reviewed_at"])
            for job in OLD["jobs"]
            if job["approved"]
        ]
        results = {job["seq"]: json.loads(job["result"] or "{}") for job in OLD["jobs"]}
        assert units == {seq: result.get("header", {}).get("satuan") for seq, result in results.items()}


def test_a_store_that_was_moved_works_on(old):
    with open_store(old, clock=Ticking("2026-01-01T00:00:00+00:00")) as store:
        (first, *_) = [job for job in store.jobs(approved=True) if store.events(job.job_id)]
        undone = store.undo(first.job_id, by="reviewer-a")
        assert (undone.approved, undone.version) == (False, first.version + 1)
        store.add_job(**new_job(500))
        assert chains_hold(store) == [None] * (len(OLD["jobs"]) + 1)
        with reading(store.engine) as connection:
            last = select(jobs.c.job_id).order_by(jobs.c.change_xid.desc(), jobs.c.change_seq.desc()).limit(1)
            assert connection.execute(last).scalar_one() == [job.job_id for job in store.jobs()][-1]


def test_there_and_back_nothing_is_different(old):
    engine = open_database(old)
    migrate(engine, "three_tables")
    assert {name: rows(engine, name) for name in ("jobs", "runs", "events")} == {
        name: OLD[name] for name in ("jobs", "runs", "events")
    }
    with reading(engine) as connection:
        assert set(inspect(connection).get_table_names()) == {"alembic_version", "events", "jobs", "runs"}
    with pytest.raises(DataError, match="runs are append-only"), writing(engine) as connection:
        connection.execute(text("DELETE FROM runs"))
    migrate(engine)
    engine.dispose()
    with open_store(old, create=False) as store:
        assert corpora(store) == OLD["corpus_sha256"]
        assert chains_hold(store) == [None] * len(OLD["jobs"])


def busy_store(url):
    """A store with everything in it that a version before has no place for."""
    store = open_store(url, clock=Ticking())
    ids = [store.add_job(**new_job(number), document=None) for number in range(6)]
    store.correct(ids[0], [Edit("set", "header.perihal", "a"), Edit("remove", "personel[0]")], by="a", actor="token")
    store.approve(ids[0], by="reviewer-a")
    store.correct(ids[1], [Edit("set", "header.perihal", "b")], by="reviewer-b")
    store.undo(ids[1], by="reviewer-a")
    store.approve(ids[2], by="reviewer-a")
    store.add_job(**new_job(2, engine="rapidocr"), rerun=True)
    store.correct(ids[2], [Edit("set", "header.perihal", "c")], by="reviewer-b")
    store.approve(ids[2], by="reviewer-b")
    store.add_job(**new_job(6, error="encrypted") | {"result": None})
    return store


def test_a_busy_store_goes_back_only_when_told(url):
    with busy_store(url) as store:
        before = corpora(store)
        with pytest.raises(
            UsageError, match="has no place for 1 archived results, 2 past approvals, 1 marks of undone"
        ):
            migrate(store.engine, "service")
        assert corpora(store) == before
        for version in (*OLDER, *reversed(OLDER)):
            migrate(store.engine, version, discard=True)
        migrate(store.engine)
        assert corpora(store) == before
        assert chains_hold(store) == [None] * 7
        store.correct(store.add_job(**new_job(9)), [Edit("set", "header.perihal", "d")], by="reviewer-a")


def test_a_job_that_waits_is_no_job_of_the_first_version(url):
    with busy_store(url) as store:
        queued = {column.name: None for column in jobs.columns} | {"approved": False, "pages": 0, "engine": ""}
        queued |= {"status": "queued", "run": 0, "version": 1, "head": "0", "change_xid": 0, "change_seq": 99}
        queued |= {"job_id": "waiting", "document_sha256": "00", "filename": "a.pdf", "source_kind": "pdf", "seq": 77}
        queued |= {"review_flags": "[]", "field_confidence": "{}", "evidence": "null"}
        queued |= {"created_at": "2026-01-01T00:00:00Z", "changed_at": "2026-01-01T00:00:00Z"}
        with writing(store.engine) as connection:
            connection.execute(jobs.insert().values(queued))
        before = corpora(store)
        with pytest.raises(UsageError, match="1 waiting jobs"):
            migrate(store.engine, "three_tables")
        migrate(store.engine, "three_tables", discard=True)
        assert "waiting" not in {row["job_id"] for row in rows(store.engine, "jobs")}
        migrate(store.engine)
        assert corpora(store) == before


def triggers(connection):
    """Every trigger with what it says."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        return [(name, " ".join(sql.split())) for name, sql in connection.execute(text(query))]
    query = "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname"
    functions = "SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'refuse%' ORDER BY proname"
    return [tuple(row) for query in (query, functions) for row in connection.execute(text(query))]


def constraints(connection):
    """Every check and every reference, which alembic does not compare."""
    inspector = inspect(connection)
    checks = {
        (name, check["name"], check["sqltext"])
        for name in metadata.tables
        for check in inspector.get_check_constraints(name)
    }
    keys = {
        (name, key["name"], *key["referred_columns"])
        for name in metadata.tables
        for key in inspector.get_foreign_keys(name)
    }
    return checks | keys


def test_migrations_make_the_tables_of_the_program(new_url, backend):
    fresh, moved = open_database(new_url(backend)), migrated(new_url(backend), SCHEMA)
    try:
        for engine in (fresh, moved):
            with reading(engine) as connection:
                context = MigrationContext.configure(
                    connection, opts={"compare_type": True, "compare_server_default": True}
                )
                assert compare_metadata(context, metadata) == []
        with reading(fresh) as made, reading(moved) as brought:
            assert triggers(made) == triggers(brought)
            assert constraints(made) == constraints(brought)
            if backend == "sqlite":
                order = [[column["name"] for column in inspect(one).get_columns("jobs")] for one in (made, brought)]
                assert order[0] == order[1]
                version = [one.execute(text("PRAGMA user_version")).scalar() for one in (made, brought)]
                assert version == [2, 2]
                tables = "SELECT sql FROM sqlite_master WHERE name = 'jobs'"
                assert ["AUTOINCREMENT" in one.execute(text(tables)).scalar() for one in (made, brought)] == [
                    True,
                    True,
                ]
    finally:
        fresh.dispose()
        moved.dispose()


def test_a_move_that_is_interrupted_has_not_happened(old, monkeypatch):
    engine = migrated_back(old)
    before = {name: rows(engine, name) for name in ("jobs", "runs", "events")}
    from alembic import op

    create_index = op.create_index

    def interrupted(name, *rest, **options):
        create_index(name, *rest, **options)
        if name == "ix_jobs_counts":
            raise KeyboardInterrupt

    monkeypatch.setattr(op, "create_index", interrupted)
    with pytest.raises(KeyboardInterrupt):
        migrate(engine)
    monkeypatch.undo()
    with reading(engine) as connection:
        assert stored_schema(connection) == "three_tables"
    assert {name: rows(engine, name) for name in ("jobs", "runs", "events")} == before
    migrate(engine)
    engine.dispose()


def migrated_back(url):
    engine = open_database(url)
    migrate(engine, "three_tables")
    return engine


def test_readers_do_not_move_a_store(old):
    with pytest.raises(DataError, match="older version; move it: ocr_sprint upgrade --store URL"):
        open_store(old, create=False)
    open_store(old).close()
    open_store(old, create=False).close()


def test_a_newer_store_is_left_alone(url):
    with open_store(url) as store, writing(store.engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'holograms'"))
    for create in (True, False):
        with pytest.raises(DataError, match=r"newer version of ocr_sprint \(holograms\); update the program"):
            open_store(url, create=create)


def test_the_first_program_refuses_a_store_that_was_moved(new_url):
    url = new_url("sqlite")
    open_store(url).close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_a_number_of_an_erased_job_is_not_given_to_another(old):
    with open_store(old) as store:
        with writing(store.engine) as connection:
            last = connection.execute(select(jobs).order_by(jobs.c.seq.desc()).limit(1)).one()
            grave = {"job_seq": last.seq, "job_id": last.job_id, "erased_at": last.changed_at, "by": "admin-a"}
            tombstones = metadata.tables["tombstones"]
            connection.execute(tombstones.insert().values(grave | {"change_xid": 0, "change_seq": 10**6}))
            for table in (archived_results, events, approvals, runs):
                connection.execute(table.delete().where(table.c.job_seq == last.seq))
            connection.execute(jobs.delete().where(jobs.c.seq == last.seq))
        job_id = store.add_job(**new_job(900))
        with reading(store.engine) as connection:
            assert connection.execute(select(jobs.c.seq).where(jobs.c.job_id == job_id)).scalar_one() > last.seq


def test_every_store_has_a_name_of_its_own(new_url, backend):
    names = set()
    for _ in range(2):
        with open_store(new_url(backend)) as store, reading(store.engine) as connection:
            names.add(
                connection.execute(select(properties.c.value).where(properties.c.name == "store_id")).scalar_one()
            )
    assert len(names) == 2


def test_the_versions_are_those_that_the_program_names():
    assert VERSIONS == ("three_tables", "service", "audit", "times")


def test_the_command_moves_a_store_and_says_what_would_be_lost(url, capsys):
    with busy_store(url) as store:
        before = corpora(store)
    assert main(["--store", url, "--to", "three_tables"]) == 2
    assert "has no place for 1 archived results" in capsys.readouterr().err
    assert main(["--store", url, "--to", "three_tables", "--discard"]) == 0
    assert main(["--store", url]) == 0
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "times -> three_tables",
        "three_tables -> times",
    ]
    with open_store(url, create=False) as store:
        assert corpora(store) == before
    assert get_args(get_type_hints(upgrade)["to"]) == VERSIONS
