"""I12: any mix of what reviewers, workers and rivals do over the real API, on both databases, against a model.

After every step the first output of every letter is rebuilt (I2) and proved (I11), every chain is whole, `verify`
finds nothing, and the exported corpus is what the model says.
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from review_samples import Ticking, corrections, new_job, results

from ocr_sprint.api.app import create_app
from ocr_sprint.api.rates import Rates
from ocr_sprint.api.service import Settings
from ocr_sprint.core.canonical import canonical, encode, sha256_hex
from ocr_sprint.review.differences import differences
from ocr_sprint.review.fieldpath import format_path, get_value, parse_path, set_value
from ocr_sprint.review.queue import claim, finish
from ocr_sprint.review.replay import Drift, apply_event, inverse, lower, prove, replay, reverse, same, states
from ocr_sprint.review.store import open_store
from ocr_sprint.review.verify_store import verify_store

UNLIMITED = Rates("1000000/minute", "1000000/minute", "1000000/minute")


@dataclass
class Letter:
    """What one letter should be."""

    content: bytes
    initial: object = None
    current: object = None  # None: it waits
    events: list = field(default_factory=list)  # of the current run
    reverts: dict = field(default_factory=dict)
    last: int = 0  # number of the last event, of whatever run
    approved: bool = False
    version: int = 1
    hands: set = field(default_factory=set)  # who had a part in the answer of the current run

    def standing(self) -> list:
        """The corrections that nobody has taken back."""
        gone = set()
        for n in sorted(self.reverts, reverse=True):
            if n not in gone:
                gone.add(self.reverts[n])
        return [event for event in self.events if event.n not in gone and event.n not in self.reverts]

    def without(self, batch: int) -> tuple[object, list]:
        """What the letter says without a batch, and the events that lead there; a Drift when others build on it."""
        state, undone = self.current, []
        for event in reversed([event for event in self.events if event.batch == batch]):
            back = inverse(event)._replace(n=self.last + len(undone) + 1, batch=self.last + 1)
            undone.append((back, event.n))
            state = apply_event(state, back)
            if isinstance(state, Drift):
                return state, []
        left = Letter(b"", events=self.events, reverts=self.reverts | {back.n: n for back, n in undone}).standing()
        wanted = replay(self.initial, [event._replace(n=n) for n, event in enumerate(left, 1)])
        fits = not isinstance(wanted, Drift) and same(wanted, state)
        return (state, undone) if fits else (Drift("value_mismatch"), [])


class Reviewing(RuleBasedStateMachine):
    """Letters come in, are read, corrected, approved, read again, by several people who get in each other's way."""

    def __init__(self, url):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(url, clock=Ticking())
        app = create_app(self.store, Settings(Path(self.folder.name) / "snapshots", UNLIMITED))
        self.client = TestClient(app, "http://127.0.0.1/api/v1", client=("127.0.0.1", 50_000))
        self.client.__enter__()
        self.letters: dict[str, Letter] = {}

    def teardown(self):
        self.client.__exit__(None, None, None)
        self.store.close()
        self.folder.cleanup()

    # What the rules share

    def read(self):
        return [job_id for job_id, letter in self.letters.items() if letter.current is not None]

    def one(self, data):
        job_id = data.draw(st.sampled_from(self.read()))
        return job_id, self.letters[job_id]

    def post(self, job_id, what, version, by="reviewer-a", **body):
        headers = {"If-Match": f'"{version}"', "X-User-Id": by}
        sent = {"content": encode(body), "headers": headers | {"Content-Type": "application/json"}} if body else {}
        return self.client.post(f"jobs/{job_id}/{what}", **(sent or {"headers": headers}))

    def done(self, response, letter):
        """A change was made: the letter has the next version."""
        assert response.status_code == 200, response.text
        assert response.json()["version"] == letter.version + 1
        assert response.headers["ETag"] == f'"{letter.version + 1}"'
        letter.version += 1

    def add(self, letter, batch, by="reviewer-a"):
        letter.hands.add(by)
        letter.events += batch
        letter.last += len(batch)
        letter.approved = False

    # What workers do

    @precondition(lambda self: len(self.letters) < 3)
    @rule(again=st.booleans())
    def upload(self, again):
        taken = {letter.content for letter in self.letters.values()}  # what was erased may come back
        content = next(each for each in (b"%PDF-1.7 letter " + bytes([n]) for n in range(9)) if each not in taken)
        for known in range(1 + again):
            response = self.client.post("jobs", files={"file": ("letter.pdf", content)})
            assert response.status_code == 202, response.text
            assert response.json()["new"] == (known == 0)
        self.letters[response.json()["job_id"]] = Letter(content)

    @precondition(lambda self: len(self.read()) < len(self.letters))
    @rule(result=results)
    def work(self, result):
        task = claim(self.store, "worker-1", 600)
        job = new_job(0, result) | {"filename": task.filename, "document_sha256": sha256_hex(task.content)}
        assert finish(self.store, task, **job)
        letter = self.letters[task.job_id]
        letter.initial = letter.current = result
        letter.version += 1

    @precondition(lambda self: self.read())
    @rule(data=st.data(), result=results)
    def read_again(self, data, result):
        job_id, letter = self.one(data)
        job = new_job(0, result) | {"document_sha256": sha256_hex(letter.content)}
        assert self.store.add_job(rerun=True, **job) == job_id
        letter.initial = letter.current = result
        letter.events, letter.reverts, letter.approved, letter.hands = [], {}, False, set()
        letter.version += 1

    # What reviewers do

    @precondition(lambda self: self.read())
    @rule(data=st.data(), sure=st.booleans())
    def correct(self, data, sure):
        job_id, letter = self.one(data)
        edits, batch, state = [], [], letter.current
        for _ in range(data.draw(st.integers(1, 3))):
            if not state:
                break
            event = data.draw(corrections(state, letter.last + len(batch) + 1))
            edit = {"op": event.op, "field_path": event.field_path}
            edit |= {} if event.op == "remove" else {"value": event.new_value}
            edits.append(edit | ({"expected": event.old_value} if sure and event.op != "add" else {}))
            if event.op != "set" or not same(event.old_value, event.new_value):
                after = apply_event(state, event)
                if event.op == "remove" and isinstance(parse_path(event.field_path)[-1], str):
                    (event,) = lower([event], [state, after])  # so that undoing it finds the key's place again
                batch.append(event._replace(batch=letter.last + 1))
                state = after
        if not edits:
            return
        response = self.post(job_id, "corrections", letter.version, edits=edits)
        if batch:
            self.done(response, letter)
            letter.current = state
            self.add(letter, batch)
        else:
            assert (response.status_code, response.json()["version"]) == (200, letter.version)

    @precondition(lambda self: self.read())
    @rule(data=st.data())
    def undo(self, data):
        job_id, letter = self.one(data)
        batches = sorted({event.batch for event in letter.events})
        asked = data.draw(st.sampled_from([None, *batches]))
        standing = letter.standing()
        batch = asked or max((event.batch for event in standing), default=None)
        response = self.post(job_id, "undo", letter.version, "reviewer-b", batch=asked)
        gone = set(letter.reverts.values())
        if batch is None:
            assert response.status_code == 409, response.text
            return
        state, undone = letter.without(batch)
        if response.status_code == 200:
            self.done(response, letter)
            assert not isinstance(state, Drift)
            letter.current = state
            letter.reverts |= {back.n: n for back, n in undone}
            self.add(letter, [back for back, _ in undone], "reviewer-b")
        else:
            assert response.status_code == 409, response.text
            assert isinstance(state, Drift) or any(e.batch == batch and e.n in gone for e in letter.events)

    @precondition(lambda self: self.read())
    @rule(data=st.data())
    def approve(self, data):
        job_id, letter = self.one(data)
        response = self.post(job_id, "approve", letter.version)
        if letter.approved:
            assert (response.status_code, response.json()["version"]) == (200, letter.version)
        else:
            self.done(response, letter)
        letter.approved = True
        letter.hands.add("reviewer-a")

    @precondition(lambda self: self.read())
    @rule(data=st.data(), by=st.sampled_from(["reviewer-a", "reviewer-b", "reviewer-c"]), agree=st.booleans())
    def review_a_second_time(self, data, by, agree):
        job_id, letter = self.one(data)
        blind = letter.approved and by not in letter.hands
        view = self.client.get(f"jobs/{job_id}/second-review", headers={"X-User-Id": by})
        assert view.status_code == (200 if blind else 403 if letter.approved else 409), view.text
        assert not blind or same(view.json()["result"], letter.initial)
        keys = letter.current if agree else ()
        edits = [{"op": "set", "field_path": format_path((key,)), "value": letter.current[key]} for key in keys]
        run = view.json()["run"] if blind else 1
        response = self.post(job_id, "second-review", letter.version, by, run=run, edits=edits)
        if not blind:
            assert response.status_code == view.status_code, response.text
            return
        assert response.status_code == 201, response.text
        assert response.json()["agrees"] == (agree or not differences(letter.current, letter.initial))
        letter.hands.add(by)
        letter.version += 1

    @precondition(lambda self: len(self.letters) > 1)
    @rule(data=st.data())
    def erase(self, data):
        job_id = data.draw(st.sampled_from(sorted(self.letters)))
        assert self.client.delete(f"jobs/{job_id}", params={"reason": "request 7"}).status_code == 204
        assert self.client.get(f"jobs/{job_id}").status_code == 404
        del self.letters[job_id]

    # What goes wrong

    @precondition(lambda self: self.read())
    @rule(data=st.data(), what=st.sampled_from(["corrections", "undo", "approve"]))
    def come_too_late(self, data, what):
        job_id, letter = self.one(data)
        path = next(iter(letter.current), None)
        body = {"corrections": {"edits": [{"op": "set", "field_path": "x", "value": 1}]}, "undo": {"batch": None}}
        response = self.post(job_id, what, letter.version - 1, "reviewer-b", **body.get(what, {}))
        assert response.status_code == 409, response.text
        assert response.json()["error"]["version"] == letter.version
        assert path is None or response.json()["error"]["code"] == "conflict"

    @precondition(lambda self: any(self.letters[job_id].current for job_id in self.read()))
    @rule(data=st.data())
    def expect_another_value(self, data):
        job_id = data.draw(st.sampled_from([job_id for job_id in self.read() if self.letters[job_id].current]))
        letter = self.letters[job_id]
        event = data.draw(corrections(letter.current, 1).filter(lambda event: event.op == "set"))
        edit = {"op": "set", "field_path": event.field_path, "value": 1, "expected": ["what nobody wrote"]}
        response = self.post(job_id, "corrections", letter.version, edits=[edit])
        assert response.status_code == 409, response.text
        (current,) = response.json()["error"]["current"]
        assert same(current["value"], get_value(letter.current, event.field_path))

    @precondition(lambda self: self.read())
    @rule(data=st.data())
    def correct_what_is_not_there(self, data):
        job_id, letter = self.one(data)
        good = {"op": "set", "field_path": next(iter(letter.current), "x"), "value": "half a batch"}
        wrong = {"op": "set", "field_path": "nobody.wrote.this", "value": 1}
        if letter.current and format_is_plain(good["field_path"]):
            response = self.post(job_id, "corrections", letter.version, edits=[good, wrong])
            assert response.status_code == 422, response.text

    @precondition(lambda self: len(self.read()) < len(self.letters))
    @rule()
    def correct_what_waits(self):
        job_id = next(job_id for job_id, letter in self.letters.items() if letter.current is None)
        response = self.post(job_id, "approve", self.letters[job_id].version)
        assert (response.status_code, response.json()["error"]["code"]) == (409, "no_result")

    # What must hold

    @invariant()
    def every_letter_is_proved(self):
        for job_id in self.read():
            letter, answer = self.letters[job_id], self.client.get(f"jobs/{job_id}/result").json()
            events = self.store.events(job_id)
            assert same(answer["result"], letter.current)
            assert (answer["approved"], answer["version"]) == (letter.approved, letter.version)
            assert [event.n for event in events] == [event.n for event in letter.events]
            past = states(answer["result"], events)
            assert list(map(canonical, past)) == list(map(canonical, states(letter.current, letter.events)))
            assert same(reverse(answer["result"], events), letter.initial)  # I2
            assert prove(reverse(answer["result"], events), answer["initial_sha256"]) is None  # I11

    @invariant()
    def every_chain_is_whole(self):
        assert list(verify_store(self.store)) == []

    @invariant()
    def the_corpus_is_the_model(self):
        response = self.client.get("ground-truth/export", params={"approved_only": "false"})
        lines = {line["job_id"]: line for line in map(json.loads, response.content.splitlines())}
        assert sorted(lines) == sorted(self.read())
        for job_id, line in lines.items():
            letter = self.letters[job_id]
            assert canonical(line["initial_result"]) == canonical(letter.initial)
            assert canonical(line["final_result"]) == canonical(letter.current)
            assert (line["approved"], len(line["corrections"])) == (letter.approved, len(letter.events))
            assert "replay_drift" not in line["review_flags"]
            assert canonical(walked_back(line)) == canonical(letter.initial)


def format_is_plain(key):
    """Whether a key is its own field path."""
    return bool(key) and key.isprintable() and not set(key) & set('.[]"')


def walked_back(line):
    """The first output as a reader of the line finds it, who knows the six keys of the requirements and no more."""
    state = line["final_result"]
    for correction in reversed(line["corrections"]):
        assert same(get_value(state, correction["field_path"]), correction["new_value"])
        state = set_value(state, correction["field_path"], correction["old_value"])
    return state


def test_i12_any_mix_over_the_api_keeps_every_letter_proved(new_url, backend):
    run_state_machine_as_test(
        lambda: Reviewing(new_url(backend)),
        settings=settings(
            max_examples=15, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
