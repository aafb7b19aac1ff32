"""The review panel without a browser: its messages, and what becomes of them over a store and over the service."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import uvicorn
from api_samples import NO_RATES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from review_samples import new_job
from sqlalchemy import event, select

from ocr_sprint.api.app import create_app
from ocr_sprint.api.service import Settings
from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.core.errors import DataError, UserError
from ocr_sprint.documents.letter import Personel, Result, parse_result, result_data
from ocr_sprint.panels import desk as panels_desk
from ocr_sprint.panels import remote as panels_remote
from ocr_sprint.panels.desk import StoreDesk, Wanted
from ocr_sprint.panels.fetching import Fetcher, small_picture
from ocr_sprint.panels.form import SECTIONS, field_at, typed
from ocr_sprint.panels.remote import ServiceDesk
from ocr_sprint.panels.session import ReviewSession, typed_operations
from ocr_sprint.panels.worksheet import Reading, conflict, worksheet
from ocr_sprint.review.database import reading, writing
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.fieldpath import get_value
from ocr_sprint.review.operations import apply_ops, operations_from, rebase
from ocr_sprint.review.practice import add_practice_letter, mark_practice, planted_errors
from ocr_sprint.review.replay import same
from ocr_sprint.review.schema import jobs
from ocr_sprint.review.second_review import conflicts, submit_second
from ocr_sprint.review.store import Store, open_store
from ocr_sprint.review.tokens import create_token

NAMES = ("ACHMAD", "BUDI", "CITRA", "DEWI")
SAVE = {"kind": "save", "mode": "first", "run": 1, "approve": True}


def letter(people: int = 3) -> dict:
    data = result_data(Result())
    data["header"] |= {"perihal": "patroli", "tahun": 2025}
    data["dasar"] = ["satu", "dua"]
    for n in range(people):
        data["personel"].append(Personel(no=n + 1, nama=NAMES[n], nrp=f"7706000{n}").model_dump(mode="json"))
    return data


def page() -> bytes:
    file = io.BytesIO()
    Image.new("L", (165, 234), 250).save(file, "PNG")
    return file.getvalue()


def add(store: Store, number: int = 1) -> str:
    content = page() + bytes([number])
    pages = [{"page": 1, "width": 165, "height": 234, "turn": 0}]
    places = {"personel[1].nrp": [{"page": 1, "box": [10, 20, 30, 40], "words": "x"}]}
    job = new_job(number, letter(), document_sha256=sha256_hex(content), filename=f"sprint-{number:03}.png")
    job |= {"source_kind": "image", "evidence": {"pages": pages, "fields": places}}
    return store.add_job(document=content, **job | {"field_confidence": {"personel[1].nrp": 0.5}})


class Screen:
    """What a browser would have heard."""

    def __init__(self, desk) -> None:
        self.heard: list[tuple[dict, list]] = []
        tell = lambda message, buffers=None: self.heard.append((message, buffers or []))  # noqa: E731
        self.session = ReviewSession(desk, tell, in_background=lambda work: work())

    def ask(self, **message) -> dict:
        self.session.handle(message)
        return next(heard for heard, _ in reversed(self.heard) if heard["kind"] not in ("own", "choices"))

    def own(self) -> dict:
        self.ask(kind="hello")
        assert self.heard[-1][0]["kind"] == "own"
        return self.heard[-1][0]["own"]

    def sheet(self, job_id: str, mode: str = "first") -> dict:
        self.heard.clear()
        self.ask(kind="want", jobs=[job_id], mode=mode)
        return self.heard[0][0]["sheet"]


@contextmanager
def served(store: Store, folder) -> Iterator[str]:
    """The service over a store, on this machine."""
    app = create_app(store, Settings(folder / "snapshots", rates=NO_RATES))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(params=["store", "service"])
def desks(request, tmp_path):
    """A store, and how two people sit down at it: the same tests for both kinds of desk."""
    with open_store(f"sqlite:///{tmp_path / 'store.db'}", validate=parse_result) as store:
        names = ("reviewer-a", "reviewer-b", "reviewer-c")
        if request.param == "store":
            desks = [StoreDesk(store, name) for name in names]
            yield store, desks
            for desk in desks:
                desk.close()
        else:
            tokens = [create_token(store, name, "reviewer") for name in names]
            with served(store, tmp_path) as address:
                yield store, [ServiceDesk(address, *each) for each in zip(tokens, names, strict=True)]


def test_a_letter_is_corrected_and_approved_by_one_message(desks) -> None:
    store, (desk, *_) = desks
    job_id = add(store)
    screen = Screen(desk)
    hello = screen.ask(kind="hello")
    assert [each["filename"] for each in hello["letters"]] == ["sprint-001.png"]
    sheet = screen.sheet(job_id)
    picture, buffers = screen.heard[1]
    assert (picture["page"], picture["problem"]) == (1, None)
    assert Image.open(io.BytesIO(buffers[0])).format == "JPEG"
    ops = [
        {"op": "set", "path": "header.tahun", "old": 2025, "value": "2024"},
        {"op": "remove", "path": "personel[0]", "old": sheet["result"]["personel"][0]},
        {
            "op": "add",
            "path": "personel[2]",
            "value": {**dict.fromkeys(Personel.model_fields), "no": "9", "nama": "EKA"},
        },
        {"op": "move", "path": "dasar[1]", "old": "dua", "value": 0, "reason": "decided by the reviewer"},
    ]
    answer = screen.ask(**SAVE, id="1", job_id=job_id, version=sheet["version"], ops=ops)
    assert (answer["kind"], answer["saved"]["approved"]) == ("saved", True)
    job = store.job(job_id)
    assert job.reviewed_by == "reviewer-a"
    assert job.version == sheet["version"] + 1, "corrections and approval are one change"
    assert job.result["header"]["tahun"] == 2024
    assert [person["nama"] for person in job.result["personel"]] == ["BUDI", "CITRA", "EKA"]
    assert job.result["personel"][2]["no"] == 9
    assert job.result["dasar"] == ["dua", "satu"]
    reasons = [event.reason for event in store.events(job_id)]
    assert reasons[:3] == ["misread characters", "read, but not printed", "printed, but not read"]
    assert reasons[3:] == ["decided by the reviewer"] * 2
    assert screen.ask(**SAVE, id="1", job_id=job_id, version=sheet["version"], ops=ops) == answer
    assert len(store.events(job_id)) == 5, "the same message twice is done once"


def test_who_was_overtaken_keeps_what_still_holds(desks) -> None:
    store, (first, second, _) = desks
    job_id = add(store)
    fast, slow = Screen(first), Screen(second)
    versions = [screen.sheet(job_id)["version"] for screen in (fast, slow)]
    subject = {"op": "set", "path": "header.perihal", "old": "patroli", "value": "jaga"}
    place = {"op": "set", "path": "header.tempat", "old": None, "value": "Bogor"}
    note = {"op": "set", "path": "personel[2].keterangan", "old": None, "value": "sakit"}
    row = {"op": "remove", "path": "personel[0]", "old": letter()["personel"][0]}
    fast.ask(**SAVE, id="f", job_id=job_id, version=versions[0], ops=[{**subject, "value": "razia"}, row])
    events = store.events(job_id)
    refused = slow.ask(**SAVE, id="s", job_id=job_id, version=versions[1], ops=[subject, place, note])
    assert refused["kind"] == "refused"
    assert store.events(job_id) == events
    assert [each["path"] for each in refused["kept"]] == ["header.tempat"]
    assert [each["path"] for each in refused["clashing"]] == ["header.perihal", "personel[2].keterangan"]
    assert refused["sheet"]["result"]["header"]["perihal"] == "razia"
    saved = slow.ask(**SAVE, id="s2", job_id=job_id, version=refused["sheet"]["version"], ops=refused["kept"])
    assert saved["kind"] == "saved"
    assert store.job(job_id).result["header"]["tempat"] == "Bogor"


def test_a_value_that_no_field_can_hold_is_refused_with_its_field(desks) -> None:
    store, (desk, *_) = desks
    job_id = add(store)
    screen = Screen(desk)
    version = screen.sheet(job_id)["version"]
    wrong = {"op": "set", "path": "header.tahun", "old": 2025, "value": "2O25"}
    checked = screen.ask(kind="check", job_id=job_id, mode="first", version=version, run=1, ops=[wrong], at=0, n=7)
    assert (checked["n"], checked["wrong"], checked["odd"]) == (7, True, ["'2O25' is no whole number"])
    refused = screen.ask(**SAVE, id="w", job_id=job_id, version=version, ops=[wrong])
    assert (refused["kind"], refused["message"]) == ("refused", "header.tahun: '2O25' is no whole number")
    assert "sheet" not in refused, "nobody was faster"
    short = {"op": "set", "path": "personel[0].nrp", "old": "77060000", "value": "7706"}
    checked = screen.ask(kind="check", job_id=job_id, mode="first", version=version, run=1, ops=[short], at=0, n=8)
    assert checked["odd"] == ["this is no NRP: an NRP has eight digits"]
    assert store.job(job_id).version == version


def test_a_second_review_is_blind_and_a_conflict_has_three_sides(desks) -> None:
    store, (first, second, third) = desks
    job_id = add(store)
    one, two, three = Screen(first), Screen(second), Screen(third)
    version = one.sheet(job_id)["version"]
    subject = {"op": "set", "path": "header.perihal", "old": "patroli", "value": "jaga"}
    one.ask(**SAVE, id="1", job_id=job_id, version=version, ops=[subject])
    assert one.ask(kind="list", mode="second")["letters"] == []
    assert [each["job_id"] for each in two.ask(kind="list", mode="second")["letters"]] == [job_id]
    sheet = two.sheet(job_id, "second")
    assert sheet["result"] == letter()
    assert "reviewer-a" not in str(sheet)
    assert "jaga" not in str(sheet)
    other = {**subject, "value": "razia"}
    gone = {"op": "remove", "path": "personel[0]", "old": letter()["personel"][0]}
    answer = two.ask(**SAVE | {"mode": "second"}, id="2", job_id=job_id, version=None, ops=[other, gone])
    assert (answer["kind"], answer["saved"]["differences"]) == ("saved", 2)
    assert [each["job_id"] for each in three.ask(kind="list", mode="conflict")["letters"]] == [job_id]
    sheet = three.sheet(job_id, "conflict")
    found = sheet["conflict"]
    assert (found["first_by"], found["second_by"]) == ("reviewer-a", "reviewer-b")
    (expected,) = conflicts(store)
    assert [each["field_path"] for each in found["fields"]] == [each.field_path for each in expected.fields]
    assert [each["pipeline"] for each in found["fields"]] == [each.pipeline for each in expected.fields]
    takes = [each["take"] | {"about": each["field_path"]} for each in found["fields"]]  # as the screen notes it
    work = {"job_id": job_id, "mode": "conflict", "version": sheet["version"], "run": 1}
    checked = three.ask(kind="check", **work, ops=takes, at=len(takes) - 1, n=1)
    assert (checked["wrong"], checked["odd"]) == (False, [])
    decided = {**SAVE, "mode": "conflict", "id": "3", "job_id": job_id, "version": sheet["version"]}
    three.ask(**decided, ops=[each["take"] for each in found["fields"]])
    result = store.job(job_id).result
    assert (result["header"]["perihal"], len(result["personel"])) == ("razia", 2)
    assert three.ask(kind="list", mode="conflict")["letters"] == []
    assert three.sheet(job_id, "conflict")["conflict"] is None


@pytest.mark.parametrize("decider", [0, 2])
def test_a_conflict_is_closed_by_leaving_the_first_answer_as_it_is(desks, decider) -> None:
    """By the first reviewer, who sees the two answers also in the list of approved letters, or by a third person."""
    store, people = desks
    job_id = add(store)
    one, two, decides = Screen(people[0]), Screen(people[1]), Screen(people[decider])
    one.ask(**SAVE, id="1", job_id=job_id, version=one.sheet(job_id)["version"], ops=[])
    other = {"op": "set", "path": "header.perihal", "old": "patroli", "value": "razia"}
    two.sheet(job_id, "second")
    two.ask(**SAVE | {"mode": "second"}, id="2", job_id=job_id, version=None, ops=[other])
    assert [each["job_id"] for each in decides.ask(kind="list", mode="conflict")["letters"]] == [job_id]
    assert decides.sheet(job_id)["conflict"] == decides.sheet(job_id, "conflict")["conflict"]
    sheet = decides.sheet(job_id, "conflict")
    saved = decides.ask(**SAVE | {"mode": "conflict"}, id="3", job_id=job_id, version=sheet["version"], ops=[])
    assert (saved["kind"], saved["saved"]["approved"]) == ("saved", True)
    assert decides.ask(kind="list", mode="conflict")["letters"] == []
    assert decides.sheet(job_id, "conflict")["conflict"] is None
    assert store.job(job_id).result == letter()


def test_what_knows_the_first_answer_is_turned_away(desks) -> None:
    store, (desk, *_) = desks
    job_id = add(store)
    store.approve(job_id, by="reviewer-a")
    screen = Screen(desk)
    answer = screen.ask(kind="want", jobs=[job_id], mode="second")
    assert answer["kind"] == "no_sheet"
    assert "reviewed it first" in answer["message"]


def test_undo_takes_back_what_was_saved(desks) -> None:
    store, (desk, *_) = desks
    job_id = add(store)
    screen = Screen(desk)
    subject = {"op": "set", "path": "header.perihal", "old": "patroli", "value": "jaga"}
    saved = screen.ask(**SAVE, id="1", job_id=job_id, version=screen.sheet(job_id)["version"], ops=[subject])
    undo = {"kind": "undo", "id": "2", "job_id": job_id, "mode": "first", "version": saved["saved"]["version"]}
    assert screen.ask(**undo)["saved"]["approved"] is False
    assert store.job(job_id).result == letter()
    sheet = screen.sheet(job_id)
    refused = screen.ask(**undo | {"id": "3", "version": sheet["version"]})
    assert refused["kind"] == "refused"
    assert "header.perihal" not in worksheet(desk.reading(job_id, "first"))["corrected"]


def test_confidence_follows_its_row(desks) -> None:
    store, (desk, *_) = desks
    job_id = add(store)
    screen = Screen(desk)
    people = letter()["personel"]
    ops = [
        {"op": "remove", "path": "personel[0]", "old": people[0]},
        {"op": "move", "path": "personel[0]", "old": people[1], "value": 1},
    ]
    assert screen.sheet(job_id)["doubtful"] == ["personel[1].nrp"]
    screen.ask(**SAVE | {"approve": False}, id="1", job_id=job_id, version=1, ops=ops)
    sheet = screen.sheet(job_id)
    assert [person["nama"] for person in sheet["result"]["personel"]] == ["CITRA", "BUDI"]
    assert sheet["doubtful"] == ["personel[1].nrp"]
    assert list(sheet["places"]) == ["personel[1].nrp"]
    assert get_value(sheet["result"], "personel[1].nama") == "BUDI"


def test_unsaved_work_comes_back_with_the_letter(desks) -> None:
    """What a page that is reloaded asks for: the list, and the letter."""
    store, (desk, *_) = desks
    job_id, other = add(store), add(store, 2)
    screen = Screen(desk)
    version = screen.sheet(job_id)["version"]
    subject = {"op": "set", "path": "header.perihal", "old": "patroli", "value": "jaga"}
    taken = {**subject, "path": "header.tempat", "old": None, "value": "Bogor", "about": "header.tempat"}
    work = {"job_id": job_id, "mode": "first", "version": version, "run": 1, "active": 4200}
    screen.ask(kind="check", **work, ops=[subject], at=0, n=1)
    assert screen.ask(kind="draft", **work, ops=[subject, taken], n=2) == {"kind": "kept", "n": 2}
    assert screen.ask(kind="hello")["drafts"] == [job_id]
    screen.sheet(job_id)
    draft = screen.heard[0][0]["draft"]
    assert (draft["kept"], draft["clashing"], draft["active"]) == ([subject, taken], [], 4200)
    screen.sheet(other)
    assert screen.heard[0][0]["draft"] is None
    assert store.job(job_id).version == version, "a draft is in no store"
    screen.ask(**SAVE, id="1", job_id=job_id, version=version, ops=[subject])
    assert screen.ask(kind="hello")["drafts"] == []
    screen.sheet(job_id)
    assert screen.heard[0][0]["draft"] is None
    assert screen.ask(kind="draft", **work, ops=[], n=3) == {"kind": "kept", "n": 3}


def test_unsaved_work_on_a_letter_that_changed_meanwhile_keeps_what_still_holds(desks) -> None:
    store, (desk, *_) = desks
    job_id = add(store)
    screen = Screen(desk)
    version = screen.sheet(job_id)["version"]
    subject = {"op": "set", "path": "header.perihal", "old": "patroli", "value": "jaga"}
    place = {"op": "set", "path": "header.tempat", "old": None, "value": "Bogor", "about": "header.tempat"}
    work = {"job_id": job_id, "mode": "first", "version": version, "run": 1}
    screen.ask(kind="draft", **work, ops=[subject, place], n=1)
    store.correct(job_id, [Edit("set", "header.perihal", "razia")], by="reviewer-b")
    for _ in range(2):  # the second time it is a draft of the present version
        sheet = screen.sheet(job_id)
        draft = screen.heard[0][0]["draft"]
        assert [each["path"] for each in draft["kept"]] == ["header.tempat"]
        clashing, screen_clashing = [each["path"] for each in draft["clashing"]], ["header.perihal"]
        assert clashing in (screen_clashing, [])
    saved = screen.ask(**SAVE, id="1", job_id=job_id, version=sheet["version"], ops=draft["kept"])
    assert saved["kind"] == "saved"
    screen.ask(kind="draft", **work | {"version": saved["saved"]["version"]}, ops=[{**place, "old": "Bogor"}], n=2)
    store.add_job(**new_job(1, letter(), document_sha256=store.job(job_id).document_sha256), rerun=True)
    screen.sheet(job_id)
    draft = screen.heard[0][0]["draft"]
    assert (draft["kept"], [each["path"] for each in draft["clashing"]]) == ([], ["header.tempat"]), "another reading"


def test_how_long_it_took_is_told_to_the_reviewer_alone(desks) -> None:
    store, (first, second, _) = desks
    job_ids = [add(store, number) for number in (1, 2)]
    one, two = Screen(first), Screen(second)
    subject = {"op": "set", "path": "header.perihal", "old": "patroli", "value": "jaga"}
    for job_id, ops, seconds in zip(job_ids, ([subject], []), (20.5, 4), strict=True):
        version = one.sheet(job_id)["version"]
        one.ask(**SAVE, id=job_id, job_id=job_id, version=version, ops=ops, seconds=seconds)
    assert [message["kind"] for message, _ in one.heard[-2:]] == ["saved", "own"]
    pace = one.heard[-1][0]["own"]["pace"]
    assert one.own()["by_name"] is isinstance(one.session._desk, StoreDesk), "a token says whose they are"
    assert pace["changed"] == {"letters": 1, "median": 20.5, "p90": 20.5}
    assert pace["unchanged"] == {"letters": 1, "median": 4, "p90": 4}
    assert one.own()["pace"] == pace
    assert two.own()["pace"]["changed"]["letters"] == 0
    sheet = two.sheet(job_ids[0], "second")
    assert "20.5" not in str(sheet)
    two.ask(**SAVE | {"mode": "second"}, id="s", job_id=job_ids[0], version=None, ops=[], seconds=9)
    assert two.own()["pace"]["unchanged"]["median"] == 9
    assert "20.5" not in str(two.sheet(job_ids[0], "first"))
    wrong = one.ask(**SAVE, id="w", job_id=job_ids[1], version=one.sheet(job_ids[1])["version"], ops=[], seconds=-3)
    assert wrong["kind"] == "refused"


def test_a_long_list_comes_in_parts(desks, monkeypatch) -> None:
    store, (desk, *_) = desks
    monkeypatch.setattr("ocr_sprint.panels.desk.PART", 3)
    monkeypatch.setattr("ocr_sprint.panels.remote.PART", 3)
    job_ids = {add(store, number) for number in range(8)}
    screen = Screen(desk)
    part = screen.ask(kind="hello")
    assert (len(part["letters"]), part["total"]) == (3, 8)
    listed = part["letters"]
    store.approve(listed[0]["job_id"], by="reviewer-b")  # the list goes on where it stood
    while part["after"]:
        part = screen.ask(kind="more", after=part["after"])
        listed = listed + part["letters"]
    assert {each["job_id"] for each in listed} == job_ids
    assert len(listed) == 8
    assert screen.ask(kind="more", after="x")["kind"] == "problem"
    for job_id in job_ids:
        store.approve(job_id, by="reviewer-b")
    assert screen.ask(kind="list", mode="second")["total"] == 8
    last = min(job_ids)
    submit_second(store, last, [Edit("set", "header.perihal", "razia")], by="reviewer-c")
    found = screen.ask(kind="list", mode="conflict")
    assert ([each["job_id"] for each in found["letters"]], found["total"]) == ([last], 1), "however long the list is"


def test_next_asks_the_store_as_much_with_5000_letters_as_with_200(tmp_path) -> None:
    """Statements are counted, and how many rows they may walk through; no time is measured."""
    asked = {}
    for size in (200, 5000):
        with open_store(f"sqlite:///{tmp_path / f'{size}.db'}") as store:
            job_id = add(store)
            with writing(store.engine) as connection:  # the same letter, many times
                row = dict(connection.execute(select(jobs).where(jobs.c.job_id == job_id)).one()._mapping)
                copies = [
                    row | {"seq": n, "job_id": f"copy-{n}", "document_sha256": f"{n:064}"} for n in range(2, size + 1)
                ]
                connection.execute(jobs.insert(), copies)
            screen, said = Screen(StoreDesk(store, "reviewer-a")), []
            event.listen(store.engine, "before_cursor_execute", lambda *call, said=said: said.append(call[2:4]))
            hello = screen.ask(kind="hello")
            assert (len(hello["letters"]), hello["total"]) == (200, size)
            listing = len(said)
            screen.ask(**SAVE, id="1", job_id=job_id, version=screen.sheet(job_id)["version"], ops=[])
            asked[size] = (listing, len(said) - listing)
            with reading(store.engine) as connection:
                for statement, values in said[listing:]:
                    if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
                        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
                        assert not [step for *_, step in plan if step == "SCAN jobs"], statement
    assert asked[200] == asked[5000]


def test_filters_offer_what_the_whole_list_holds_with_the_length_of_each_list(desks, monkeypatch) -> None:
    """Also what stands behind the first part of it."""
    store, (desk, *_) = desks
    for number, unit in enumerate(("POLRES A", "POLRES B", "POLRES B", None), 1):
        found = {"header": {"satuan": unit}, "personel": []}
        flags = ["nrp_format@personel[0].nrp", *(["rare:1"] if number == 3 else [])]
        store.add_job(**new_job(number, found, review_flags=flags, filename=f"sprint-{number:03}.png"))
    for module in (panels_desk, panels_remote):
        monkeypatch.setattr(module, "PART", 1)
    screen = Screen(desk)
    letters = screen.ask(kind="hello")
    assert (len(letters["letters"]), letters["total"]) == (1, 4)

    def told() -> dict:
        return next(heard for heard, _ in reversed(screen.heard) if heard["kind"] == "choices")

    assert told()["wanted"] == letters["wanted"]
    assert told()["flags"] == [{"value": "nrp_format", "jobs": 4}, {"value": "rare", "jobs": 1}]
    assert told()["units"] == [{"value": "POLRES B", "jobs": 2}, {"value": "POLRES A", "jobs": 1}]
    for name, key in (("flags", "flag"), ("units", "satuan")):
        for choice in told()[name]:
            assert screen.ask(kind="list", mode="first", **{key: choice["value"]})["total"] == choice["jobs"]
            screen.ask(kind="hello")
            screen.ask(kind="list", mode="first", flag=None, satuan=None)
    screen.ask(kind="list", mode="first", flag="rare", satuan="POLRES A")
    assert told()["flags"] == [{"value": "nrp_format", "jobs": 1}, {"value": "rare", "jobs": 0}]
    assert told()["units"] == [{"value": "POLRES B", "jobs": 1}, {"value": "POLRES A", "jobs": 0}]
    screen.ask(kind="list", mode="second")
    assert (told()["flags"], told()["units"]) == ([], [])


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'review.db'}", validate=parse_result) as opened:
        yield opened


def test_a_reviewers_own_figures_hold_nothing_up(store: Store, monkeypatch) -> None:
    job_id, later = add(store, 1), []
    desk = StoreDesk(store, "reviewer-a")
    screen = Screen(desk)
    screen.session = ReviewSession(
        desk, lambda message, *_: screen.heard.append((message, [])), in_background=later.append
    )
    monkeypatch.setattr(StoreDesk, "own", lambda _: pytest.fail("it is waited for"))
    screen.session.handle({"kind": "hello"})
    for number in (1, 2):
        screen.session.handle(SAVE | {"id": str(number), "job_id": job_id, "version": number, "ops": []})
    assert [message["kind"] for message, _ in screen.heard] == ["letters", "saved", "saved"]
    assert len(later) == 2, "one wish at a time, for the list's choices and for these"

    def broken(*_):
        raise KeyError("changed")

    monkeypatch.setattr(StoreDesk, "own", broken)
    monkeypatch.setattr(StoreDesk, "choices", broken)
    for work in later:
        work()
    assert len(screen.heard) == 3, "nothing is said"


def test_an_answer_of_another_version_is_told_in_a_line_and_the_next_letter_comes(store: Store, monkeypatch) -> None:
    first, second = add(store, 1), add(store, 2)
    reading = StoreDesk.reading

    def other(desk, job_id, mode):
        return reading(desk, job_id, mode) if job_id == second else {}["result"]

    monkeypatch.setattr(StoreDesk, "reading", other)
    monkeypatch.setattr(StoreDesk, "picture", lambda *_: {}["frame"])
    screen = Screen(StoreDesk(store, "reviewer-a"))
    screen.session.handle({"kind": "want", "jobs": [first, second], "mode": "first"})
    kinds = [(message["kind"], message.get("message") or message.get("problem")) for message, _ in screen.heard]
    assert [kind for kind, _ in kinds] == ["no_sheet", "sheet", "picture"]
    assert all("KeyError" in kinds[at][1] and "the same version" in kinds[at][1] for at in (0, 2))


def test_practice_says_what_was_missed_and_keeps_count(tmp_path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'practise.db'}", validate=parse_result) as store:
        mark_practice(store)
        rows = [add_practice_letter(store, new_job(number, letter()), share=0.6) for number in (1, 2)]
        screen = Screen(StoreDesk(store, "reviewer-a"))
        assert screen.own()["caught"]["planted"] == 0
        errors = planted_errors(store, rows[0])
        assert len(errors) > 1
        error, *missed = errors
        mended = {"op": "set", "path": error.field_path, "old": error.planted, "value": error.right}
        sheet = screen.sheet(rows[0])
        assert "planted" not in str(sheet)
        answer = screen.ask(**SAVE, id="1", job_id=rows[0], version=sheet["version"], ops=[mended])
        told = answer["saved"]["practice"]
        assert [each["field_path"] for each in told if each["caught"]] == [error.field_path]
        assert [each["field_path"] for each in told if not each["caught"]] == [each.field_path for each in missed]
        caught = screen.heard[-1][0]["own"]["caught"]
        assert (caught["letters"], caught["planted"], caught["caught"]) == (1, len(errors), 1)
        assert 0 < caught["low"] < 1 / len(errors) < caught["high"] < 1
        assert Screen(StoreDesk(store, "reviewer-b")).own()["caught"]["planted"] == 0


def test_letters_are_listed_by_flag_unit_and_state(desks) -> None:
    store, (desk, *_) = desks
    job_ids = [add(store, number) for number in (1, 2, 3)]
    store.approve(job_ids[0], by="reviewer-b")
    listed = lambda **wanted: [each.job_id for each in desk.letters(Wanted(**wanted)).letters]  # noqa: E731
    assert sorted(listed()) == sorted(job_ids[1:])
    assert sorted(listed(approved=True)) == sorted(job_ids)
    assert listed(satuan="POLDA BALI") == []
    assert listed(mode="second") == [job_ids[0]]
    problem = Screen(desk).ask(kind="list", flag="no flag!")
    assert problem["kind"] == "problem"


def test_malformed_messages_change_nothing(desks) -> None:
    store, (desk, *_) = desks
    job_id = add(store)
    screen = Screen(desk)
    version = screen.sheet(job_id)["version"]
    for ops in (
        "x",
        [{"op": "set"}],
        [{"op": "move", "path": "header.perihal", "old": "patroli", "value": 1}],
        [{"op": "remove", "path": "header.perihal", "old": "patroli"}],
        [{"op": "set", "path": "[[", "value": 1}],
        [{"op": "set", "path": "header.nomor", "old": None, "value": "x"}],
        [{"op": "add", "path": "personel[9]", "value": {}}],
    ):
        refused = screen.ask(**SAVE, id=str(ops), job_id=job_id, version=version, ops=ops)
        assert refused["kind"] == "refused", ops
    assert screen.ask(kind="want", jobs=["00000000-0000-0000-0000-000000000000"], mode="first")["kind"] == "no_sheet"
    assert store.job(job_id).version == version


class Strange(BaseHTTPRequestHandler):
    """Takes work and breaks off; answers questions with a page for people."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))

    def do_GET(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n<html>Log in</html>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_what_a_service_may_have_done_before_it_broke_off_is_not_said_to_be_undone() -> None:
    with HTTPServer(("127.0.0.1", 0), Strange) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        desk = ServiceDesk(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(DataError, match="look whether it was done"):
            desk.save("a", [], 1, approve=True)
        with pytest.raises(DataError, match="answers in no known way"):
            desk.own()
        server.shutdown()


def test_a_second_review_is_not_handed_in_by_a_save(desks) -> None:
    store, (first, second, _) = desks
    job_id = add(store)
    first.save(job_id, [], first.reading(job_id, "first").version, approve=True)
    screen = Screen(second)
    screen.sheet(job_id, "second")
    told = screen.ask(**SAVE | {"mode": "second", "approve": False}, id="2", job_id=job_id, version=None, ops=[])
    assert (told["kind"], "as a whole" in told["message"]) == ("refused", True)
    assert second.reading(job_id, "second").result == store.job(job_id).result


def test_a_page_that_cannot_be_drawn_is_said(tmp_path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        job_id = store.add_job(**new_job(1, letter()))
        screen = Screen(StoreDesk(store, "reviewer-a"))
        screen.sheet(job_id)
        assert "ingest it once more" in screen.heard[1][0]["problem"]


def test_an_approval_whose_practice_cannot_be_told_is_no_refusal(tmp_path, monkeypatch) -> None:
    def busy(_store: Store) -> bool:
        raise DataError("the store cannot be used: database is locked")

    monkeypatch.setattr("ocr_sprint.panels.desk.is_practice", busy)
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        job_id = store.add_job(**new_job(1, letter()))
        screen = Screen(StoreDesk(store, "reviewer-a"))
        version = screen.sheet(job_id)["version"]
        assert screen.ask(**SAVE, id="1", job_id=job_id, version=version, ops=[])["kind"] == "saved"
        assert store.job(job_id).approved


def test_a_page_that_is_no_picture_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(StoreDesk, "picture", lambda *_: b"<html>Log in</html>")
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        job_id = store.add_job(**new_job(1, letter()))
        screen = Screen(StoreDesk(store, "reviewer-a"))
        screen.sheet(job_id)
        assert "is no picture" in screen.heard[1][0]["problem"]


def test_the_latest_wish_is_fetched_first() -> None:
    fetched, started = [], []
    fetcher = Fetcher(lambda job_id, _mode: fetched.append(job_id), started.append)
    fetcher.want(["a", "b"], "first")
    fetcher.want(["c"], "first")
    assert len(started) == 1
    started[0]()
    assert fetched == ["c"]
    fetcher.want(["d"], "first")
    assert len(started) == 2


def test_a_wish_that_fails_does_not_end_the_wishes() -> None:
    started = []

    def fails(job_id: str, _mode: str) -> None:
        raise RuntimeError(job_id)

    fetcher = Fetcher(fails, started.append)
    for n in (1, 2):
        fetcher.want(["a"], "first")
        with pytest.raises(RuntimeError):
            started[-1]()
        assert len(started) == n


def test_a_picture_is_smaller_than_its_page() -> None:
    assert len(small_picture(page())) < 2000


PATHS = [
    f"{section.path}.{field.name}" for section in SECTIONS if section.shape == "fields" for field in section.fields
]


@given(st.sampled_from(PATHS), st.text(max_size=12) | st.booleans() | st.none())
@settings(max_examples=150)
def test_whatever_is_typed_fits_the_letter_or_is_refused(path, value) -> None:
    try:
        kept = typed(path, value)
    except DataError as error:
        assert str(error).startswith(f"{path}: ")
        return
    if isinstance(value, bool) and field_at(path).kind != "yes_no":
        return
    data = letter()
    section, name = path.split(".")
    data[section][name] = kept
    parse_result(data)
    assert typed(path, kept) == kept


@st.composite
def worked(draw):
    """A letter, and operations that a screen would send for it."""
    data, ops = letter(), []
    state = data
    for _ in range(draw(st.integers(1, 6))):
        people = state["personel"]
        kind = draw(st.sampled_from(["set", "add", *(["remove", "move", "cell"] if people else [])]))
        n = draw(st.integers(0, max(len(people) - 1, 0)))
        row = dict.fromkeys(Personel.model_fields) | {"nama": draw(st.sampled_from(NAMES))}
        op = {
            "set": {
                "op": "set",
                "path": "header.perihal",
                "old": state["header"]["perihal"],
                "value": draw(st.sampled_from("abc")),
            },
            "add": {"op": "add", "path": f"personel[{n}]", "value": row},
            "remove": {"op": "remove", "path": f"personel[{n}]", "old": people[n] if people else None},
            "move": {"op": "move", "path": f"personel[{n}]", "old": people[n] if people else None, "value": 0},
            "cell": {
                "op": "set",
                "path": f"personel[{n}].nama",
                "old": people[n]["nama"] if people else None,
                "value": "GITA",
            },
        }[kind]
        ops.append(op)
        state = apply_ops(state, operations_from([op]))
    return data, ops, state


@given(worked())
@settings(max_examples=80)
def test_operations_lead_where_the_screen_was_and_rebase_keeps_all_on_an_unchanged_letter(work) -> None:
    data, sent, state = work
    operations = typed_operations(sent, data)
    assert same(apply_ops(data, operations), state)
    assert all(operation.reason for operation in operations)
    rebased = rebase(operations, data, data)
    assert (rebased.kept, rebased.clashing) == (operations, [])


@given(worked(), worked())
@settings(max_examples=80)
def test_what_is_kept_after_a_rival_always_applies_and_never_overwrites(mine, theirs) -> None:
    data, sent, _ = mine
    now = theirs[2]
    kept, clashing = rebase(typed_operations(sent, data), data, now)
    after = apply_ops(now, kept)
    assert len(kept) + len(clashing) == len(sent)
    if not same(data["personel"], now["personel"]):
        assert same(after["personel"], now["personel"])
    if not same(data["header"], now["header"]):
        assert same(after["header"], now["header"])


def test_a_drifted_history_hides_no_conflict() -> None:
    """The pipeline's side is unknown then; the two people's are not."""
    second = {"run": 1, "n": 1, "agrees": False, "approval": 1, "by": "b", "at": "", "answer": '{"header":{"tahun":2}}'}
    event = {"n": 1, "op": "set", "field_path": "header.tahun", "old_value": "7", "new_value": "8", "corrected_by": "a"}
    event |= {"reason": None, "corrected_at": "", "run": 1, "batch": 1, "reverts": None}
    trail = [{"kind": "events", "fields": event}, {"kind": "second_reviews", "fields": second}]
    for each in trail:
        each |= {"n": 1, "by": "a", "at": "", "what": ""}
    reading = Reading("j", "f", 1, 1, {"header": {"tahun": 1}}, None, {}, None, [], trail=trail)
    (row,) = conflict(reading)["fields"]
    assert (row["pipeline"], row["first"], row["second"]) == (None, 1, 2)


def test_errors_of_the_service_are_those_of_a_store(tmp_path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        add(store)
        token = create_token(store, "viewer", "viewer")
        with served(store, tmp_path) as address:
            desk = ServiceDesk(address, token)
            job_id = desk.letters(Wanted()).letters[0].job_id
            with pytest.raises(UserError, match="reviewer"):
                desk.save(job_id, [], 1, approve=True)
            assert token not in repr(desk)
            assert token not in repr(desk._service)
