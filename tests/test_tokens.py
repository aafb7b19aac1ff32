"""Tokens on both backends: what is stored, what is accepted, and that nobody waits for nothing."""

import datetime
import json
from pathlib import Path

import pytest
from review_samples import Ticking
from sqlalchemy import select

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.review.database import reading
from ocr_sprint.review.schema import tokens
from ocr_sprint.review.store import open_store
from ocr_sprint.review.tokens import (
    ROLES,
    at_least,
    authenticate,
    create_token,
    has_tokens,
    list_tokens,
    revoke_token,
)
from ocr_sprint.tools.token import main


@pytest.fixture
def store(url):
    with open_store(url, clock=Ticking()) as opened:
        yield opened


def rows(store):
    with reading(store.engine) as connection:
        return connection.execute(select(tokens)).all()


def test_the_secret_is_not_in_the_store(store):
    text = create_token(store, "reviewer-a", "reviewer")
    _, token_id, secret = text.split("_")
    (row,) = rows(store)
    assert len(bytes.fromhex(secret)) * 8 == 256
    assert (row.token_id, row.secret_sha256) == (token_id, sha256_hex(secret.encode()))
    assert secret not in str(row)
    assert create_token(store, "reviewer-a", "reviewer") != text


def test_only_the_whole_token_is_accepted(store):
    text, other = (create_token(store, name, "viewer") for name in ("a", "b"))
    _, token_id, secret = text.split("_")
    assert authenticate(store, text).name == "a"
    crossed = f"osk_{other.split('_')[1]}_{secret}"
    near = [text[:-1], text + "0", text + "\n", f" {text}", text.upper(), f"osk_{token_id}_", crossed, secret, token_id]
    near += [f"osk_{token_id}_{secret[:-1]}{'0' if secret[-1] != '0' else '1'}", f"xsk_{token_id}_{secret}", "é" * 85]
    assert [authenticate(store, attempt) for attempt in near] == [None] * len(near)


def test_an_end_is_an_end(store):
    at = store.clock()
    text = create_token(store, "guest", "viewer", expires_at=at + datetime.timedelta(minutes=30))
    looks = [authenticate(store, text) is not None for _ in range(40)]  # a minute goes by at each look
    assert looks == sorted(looks, reverse=True)
    assert 20 < sum(looks) < 30
    lasting = create_token(store, "cron", "admin")
    assert authenticate(store, lasting) is not None
    ended = revoke_token(store, lasting.split("_")[1])
    assert authenticate(store, lasting) is None
    assert revoke_token(store, lasting.split("_")[1]).revoked_at == ended.revoked_at
    assert has_tokens(store), "a store with tokens never becomes open again"


def test_reading_many_times_in_a_minute_writes_once(url):
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    with open_store(url, clock=lambda: now) as store:
        text = create_token(store, "cron", "viewer")
        assert authenticate(store, text).last_used_at == "2026-01-01T00:00:00Z"
        frozen = type(store)(store.engine, lambda: now + datetime.timedelta(seconds=59))
        assert authenticate(frozen, text).last_used_at == "2026-01-01T00:00:00Z"
        later = type(store)(store.engine, lambda: now + datetime.timedelta(seconds=60))
        assert authenticate(later, text).last_used_at == "2026-01-01T00:01:00Z"


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda store: create_token(store, "x", "root"), "no role"),
        (lambda store: create_token(store, " ", "viewer"), "printable characters"),
        (lambda store: create_token(store, "x" * 129, "viewer"), "printable characters"),
        (lambda store: create_token(store, "x", "viewer", aliases=["a\nb"]), "printable characters"),
        (lambda store: create_token(store, "x", "viewer", expires_at=datetime.datetime(2099, 1, 1)), "no time zone"),
    ],
)
def test_what_cannot_be_a_token_is_refused(store, call, complaint):
    with pytest.raises(UsageError, match=complaint):
        call(store)
    assert rows(store) == []
    assert not has_tokens(store)


def test_an_unknown_token_cannot_be_revoked(store):
    with pytest.raises(DataError, match="no token"):
        revoke_token(store, "'; DROP TABLE tokens; --")


def test_roles_stand_on_each_other():
    ladder = [[at_least(role, needed) for needed in ROLES] for role in ROLES]
    assert ladder == [[True, False, False], [True, True, False], [True, True, True]]


def test_the_command_makes_no_store_unless_it_is_told_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OCR_SPRINT_STORE", raising=False)
    words = ["create", "--name", "a", "--role", "admin"]
    for named, shown in (([], "ocr_sprint.db"), (["--store", "sqlite:///typo.db"], "typo.db")):
        assert main([*words, *named]) == 2
        said = capsys.readouterr()
        assert (said.out, len(said.err.splitlines())) == ("", 1)
        assert f"there is no store {shown}; name the one that is served with --store URL, or add --create" in said.err
    Path("empty.db").touch()
    assert main([*words, "--store", "sqlite:///empty.db"]) == 2
    capsys.readouterr()
    assert [(file.name, file.stat().st_size) for file in tmp_path.iterdir()] == [("empty.db", 0)]
    for words_again in ([*words, "--create"], words):
        assert main([*words_again, "--store", "sqlite:///new.db"]) == 0
        said = capsys.readouterr()
        assert said.out.startswith("osk_")
        assert said.err == "a token of a (admin) for the store new.db\n"


def test_the_command_makes_lists_and_revokes(url, capsys):
    words = ["--create", "--name", "penguji", "--role", "reviewer", "--aliases", "a", "b", "--store", url]
    assert main(["create", *words]) == 0
    text = capsys.readouterr().out.strip()
    with open_store(url) as store:
        token = authenticate(store, text)
        assert (token.name, token.role, token.aliases) == ("penguji", "reviewer", ("a", "b"))
        assert main(["revoke", "--id", token.token_id, "--store", url]) == 0
        assert authenticate(store, text) is None
        assert len(list_tokens(store)) == 1
    capsys.readouterr()
    assert main(["list", "--store", url]) == 0
    listed = capsys.readouterr().out
    assert text.split("_")[2] not in listed
    assert json.loads(listed)["revoked_at"] is not None
