"""The service from outside: who may do what, how every error looks, and what happens when two review at once."""

import io
import json
import threading
import uuid
import zlib

import pytest
from api_samples import JOBS, TRUTH, client_of, fill, problem, service, tokens_of
from PIL import Image
from review_samples import new_job

from ocr_sprint.api.guard import GuardedRoute
from ocr_sprint.api.pictures import Picture
from ocr_sprint.api.rates import Rates
from ocr_sprint.documents.letter import Personel, Result, parse_result, result_data
from ocr_sprint.review.documents import Document
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.export import record_export
from ocr_sprint.review.queue import submit
from ocr_sprint.review.replay import prove, reverse
from ocr_sprint.review.tokens import ROLES, create_token, revoke_token

PERIHAL = "header.perihal"


@pytest.fixture
def api(url, tmp_path):
    with service(url, tmp_path, validate=parse_result, upload_bytes=200_000) as opened:
        yield opened
    opened[1].state.service.pictures.close()


@pytest.fixture
def local(new_url, tmp_path):
    """A service over SQLite, for what never gets as far as the database."""
    with service(new_url("sqlite"), tmp_path, validate=parse_result, upload_bytes=200_000) as opened:
        yield opened
    opened[1].state.service.pictures.close()


def letter(store, number=1):
    rows = (Personel(nama="BUDI", nrp="7706OOOO"), Personel(nama="ANI", nrp="8001OOOI"))
    return store.add_job(**new_job(number, result_data(Result(personel=rows))))


def png(width, height):
    file = io.BytesIO()
    Image.new("L", (width, height), 200).save(file, "PNG")
    return file.getvalue()


def edit(value, path=PERIHAL, **more):
    return {"edits": [{"op": "set", "field_path": path, "value": value} | more]}


def change(client, job_id, what, body=None, version=None, **headers):
    match = {} if version is None else {"If-Match": f'"{version}"'}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"{JOBS}/{job_id}/{what}", json=body, headers=match | sent)


# Who may do what: the least role for each endpoint, beside the two that everybody may ask.
NEEDED = {
    ("GET", f"{TRUTH}/export"): "admin",
    ("GET", f"{TRUTH}/stats"): "viewer",
    ("GET", f"{TRUTH}/readiness"): "viewer",
    ("POST", f"{TRUTH}/snapshots"): "admin",
    ("GET", f"{TRUTH}/snapshots"): "admin",
    ("GET", f"{TRUTH}/snapshots/{{snapshot_id}}"): "admin",
    ("GET", f"{TRUTH}/snapshots/{{snapshot_id}}/corpus.jsonl"): "admin",
    ("HEAD", f"{TRUTH}/snapshots/{{snapshot_id}}/corpus.jsonl"): "admin",
    ("GET", f"{TRUTH}/changes"): "admin",
    ("POST", JOBS): "reviewer",
    ("GET", JOBS): "viewer",
    ("GET", f"{JOBS}/{{job_id}}"): "viewer",
    ("DELETE", f"{JOBS}/{{job_id}}"): "admin",
    ("GET", f"{JOBS}/{{job_id}}/result"): "viewer",
    ("GET", f"{JOBS}/{{job_id}}/trail"): "viewer",
    ("GET", f"{JOBS}/{{job_id}}/pages/{{number}}"): "viewer",
    ("POST", f"{JOBS}/{{job_id}}/corrections"): "reviewer",
    ("POST", f"{JOBS}/{{job_id}}/undo"): "reviewer",
    ("POST", f"{JOBS}/{{job_id}}/approve"): "reviewer",
    ("GET", f"{JOBS}/{{job_id}}/second-review"): "reviewer",
    ("POST", f"{JOBS}/{{job_id}}/second-review"): "reviewer",
    ("GET", "/api/v1/second-reviews/conflicts"): "reviewer",
    ("GET", "/api/v1/pace"): "reviewer",
    ("GET", "/api/v1/job-choices"): "viewer",
    ("GET", "/api/v1/progress"): "viewer",
    ("GET", "/api/v1/progress/throughput"): "viewer",
    ("POST", f"{JOBS}/{{job_id}}/retry"): "reviewer",
    ("GET", "/metrics"): "viewer",
}
OPEN = {("GET", "/health")}


def endpoints(app):
    return {(method.upper(), path) for path, found in app.openapi()["paths"].items() for method in found}


def refused_first(client, method, path):
    """The answer to a request that nothing but the caller's rights can refuse before its body is read."""
    address = path.format(job_id=uuid.uuid4(), snapshot_id=uuid.uuid4(), number=1)
    return client.request(method, address, content=b"\xff not even JSON")


def test_every_endpoint_asks_for_a_token_and_a_role(api):
    store, app = api
    tokens = tokens_of(store)
    assert endpoints(app) == set(NEEDED) | OPEN
    for (method, path), least in NEEDED.items():
        nobody = refused_first(client_of(app), method, path)
        assert nobody.status_code == 401, (method, path)
        assert nobody.headers["www-authenticate"] == "Bearer"
        for role in ROLES:
            answer = refused_first(client_of(app, tokens[role]), method, path)
            allowed = ROLES.index(role) >= ROLES.index(least)
            assert (answer.status_code == 403) == (not allowed), (method, path, role, answer.text)
            assert answer.status_code != 401
    assert client_of(app).get("/health").status_code == 200


def test_every_endpoint_behind_the_prefix_is_guarded(api):
    def routes(parts):
        for part in parts:
            yield from routes(part.routes) if not hasattr(part, "endpoint") and hasattr(part, "routes") else [part]

    _, app = api
    open_paths = {"/health", "/api/v1/openapi.json"}
    flat = [route for route in routes(app.router.routes) if hasattr(route, "endpoint")]
    assert [route for route in flat if not isinstance(route, GuardedRoute) and route.path not in open_paths] == []


def test_who_may_export_is_a_setting(url, tmp_path):
    with service(url, tmp_path, export_role="viewer") as (store, app):
        fill(store)
        viewer = client_of(app, tokens_of(store)["viewer"])
        assert viewer.get(f"{TRUTH}/export").text.count("\n") == 3
        assert viewer.post(f"{TRUTH}/snapshots", json={}).status_code == 201
        assert viewer.delete(f"{JOBS}/{uuid.uuid4()}").status_code == 403


def test_tokens_end_at_once(api):
    store, app = api
    assert client_of(app).get(JOBS).status_code == 200, "an open store serves its own machine"
    text = create_token(store, "guest", "viewer")
    client = client_of(app, text, address=("192.0.2.7", 1))
    assert client_of(app).get(JOBS).status_code == 401, "and asks for a token from the first one on"
    assert client.get(JOBS).status_code == 200, "which may come from anywhere"
    revoke_token(store, text.split("_")[1])
    assert problem(client.get(JOBS))["field"] == "Authorization"
    assert client_of(app).get(JOBS).status_code == 401, "a store never becomes open again"


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("192.0.2.7", {}),
        ("::ffff:192.0.2.7", {}),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.7"}),
        ("127.0.0.1", {"Host": "rebound.example"}),
        ("127.0.0.1", {"Host": "127.0.0.1.rebound.example:8000"}),
        ("127.0.0.1", {"Origin": "https://pages.example"}),
        ("127.0.0.1", {"Origin": "null"}),
    ],
)
def test_an_open_store_is_for_this_machine_only(local, address, headers):
    _, app = local
    client = client_of(app, address=(address, 50_000), **headers)
    for answer in (client.get(JOBS), client.post(JOBS, files={"file": ("a.pdf", b"%PDF-1.7")})):
        assert answer.status_code == 403
        assert problem(answer)["code"] == "forbidden"
    assert client.get("/health").status_code == 200


def test_under_which_name(api):
    store, app = api
    job_id = letter(store)
    opened = client_of(app)
    assert change(opened, job_id, "approve", version=1).json()["reviewed_by"] == "anonymous"
    assert change(opened, job_id, "approve", version=2, X_User_Id="who I say").json()["reviewed_by"] == "who I say"
    text = create_token(store, "reviewer-a", "reviewer", aliases=["reviewer-b"])
    client = client_of(app, text)
    assert change(client, job_id, "approve", version=3).json()["reviewed_by"] == "reviewer-a"
    assert change(client, job_id, "corrections", edit("Patroli"), 4, X_User_Id="reviewer-b").status_code == 200
    other = change(client, job_id, "approve", version=5, X_User_Id="reviewer-c")
    assert (other.status_code, problem(other)["field"]) == (403, "X-User-Id")
    for name in ("x" * 129, "a\x7fb", "a\tb", "é"):
        answer = client.post(
            f"{JOBS}/{job_id}/approve", headers={"If-Match": '"5"', b"X-User-Id": name.encode("latin-1")}
        )
        assert (answer.status_code, problem(answer)["field"]) == (422, "X-User-Id"), name
    entries = client.get(f"{JOBS}/{job_id}/trail").json()["entries"]
    said = [(entry["by"], entry["actor"]) for entry in entries if entry["kind"] != "runs"]
    mine = text.split("_")[1]
    revoked = ("reviewer-b", mine)
    assert said == [("anonymous", None), ("who I say", None), ("reviewer-a", mine), ("reviewer-b", mine), revoked]


BAD_JSON = {
    "broken": b'{"edits": [',
    "no body": b"",
    "two keys": b'{"reason": "a", "reason": "b", "edits": [{"op": "set", "field_path": "header.perihal", "value": 1}]}',
    "half a surrogate": rb'{"edits": [{"op": "set", "field_path": "header.perihal", "value": "\ud800"}]}',
    "NaN": b'{"edits": [{"op": "set", "field_path": "header.perihal", "value": NaN}]}',
    "65 bits": b'{"edits": [{"op": "set", "field_path": "header.perihal", "value": 18446744073709551616}]}',
    "infinite": b'{"edits": [{"op": "set", "field_path": "header.perihal", "value": 1e999}]}',
    "deep": b'{"edits": [{"op": "set", "field_path": "a", "value": ' + b"[" * 300 + b"]" * 300 + b"}]}",
    "no UTF-8": b'{"reason": "\xff"}',
}


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_would_be_lost_or_guessed_is_refused(local, body):
    store, app = local
    job_id = letter(store)
    headers = {"If-Match": '"1"', "Content-Type": "application/json"}
    answer = client_of(app).post(f"{JOBS}/{job_id}/corrections", content=body, headers=headers)
    assert answer.status_code == 422
    assert problem(answer)["field"] == "body"
    assert store.job(job_id).version == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "edits"),
        ({"edits": []}, 422, "edits"),
        (edit("x") | {"because": "y"}, 422, "because"),
        (edit("x", because="y"), 422, "edits[0].because"),
        ({"edits": [{"op": "move", "field_path": "a", "value": 1}]}, 422, "edits[0]"),
        ({"edits": [{"op": "set", "field_path": "a"}]}, 422, "edits[0].value"),
        ({"edits": [{"op": "remove", "field_path": "personel[0]", "value": 1}]}, 422, "edits[0].value"),
        (edit(1, "a..b"), 422, "edits[0].field_path"),
        (edit(1, "personel[01]"), 422, "edits[0].field_path"),
        (edit(1, "header.tidak_ada"), 422, "edits[0].field_path"),
        (edit(1, "personel[7].nrp"), 422, "edits[0].field_path"),
        (edit(1, "header.perihal.x"), 422, "edits[0].field_path"),
        (edit("dua ribu", "header.tahun"), 422, "edits[0]"),
        ({"edits": [edit("ok")["edits"][0], edit(1, "header.x")["edits"][0]]}, 422, "edits[1].field_path"),
        (edit("x", reason="\x00"), 422, "edits[0].reason"),
        ({"edits": [edit("ok")["edits"][0], edit("\x1b[2J", "header.nomor_sprint")["edits"][0]]}, 422, "edits[1]"),
        (edit("a\x00", PERIHAL), 422, "edits[0]"),
        (edit("x" * (256 * 1024)), 413, "edits[0].value"),
        (edit(["x" * 100_000] * 50), 413, "body"),
        (edit("x", expected="Patroli"), 409, PERIHAL),
    ],
)
def test_edits_that_cannot_be_done_change_nothing(local, body, status, field):
    store, app = local
    job_id = letter(store)
    before = store.job(job_id)
    answer = change(client_of(app), job_id, "corrections", body, 1)
    assert (answer.status_code, problem(answer)["field"]) == (status, field), answer.text
    assert store.job(job_id) == before


@pytest.mark.parametrize(
    ("match", "status"),
    [(None, 428), ("1", 422), ('W/"1"', 422), ("*", 422), ('"one"', 422), ('"01"', 422), ('"2"', 409), ('"1"', 200)],
)
@pytest.mark.parametrize(("what", "body"), [("corrections", edit("Patroli")), ("undo", {}), ("approve", None)])
def test_a_change_names_the_version_that_was_seen(local, match, status, what, body):
    store, app = local
    job_id = letter(store)
    headers = {} if match is None else {"If-Match": match}
    if what == "undo" and status == 200:
        status = 409  # there is nothing to undo
    answer = client_of(app).post(f"{JOBS}/{job_id}/{what}", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    if status in (428, 422):
        assert problem(answer)["field"] == "If-Match"
    if status == 422:
        assert problem(answer)["message"] == 'If-Match: put the version in double quotes: "1"'


@pytest.mark.parametrize("path", ["/", "/api/v1", "/api/v1/nowhere"])
def test_an_address_that_is_none_says_where_all_stand(local, path):
    _, app = local
    answer = client_of(app).get(path)
    assert answer.status_code == 404
    assert problem(answer)["message"].endswith(" All addresses stand in /api/v1/openapi.json.")


def test_two_reviewers_and_the_current_value(api):
    store, app = api
    job_id = letter(store)
    client = client_of(app)
    seen = client.get(f"{JOBS}/{job_id}/result")
    version = int(seen.headers["etag"].strip('"'))
    assert version == seen.json()["version"] == 1
    first = change(client, job_id, "corrections", edit("Patroli"), version, X_User_Id="reviewer-a")
    assert first.headers["etag"] == '"2"'
    both = {"edits": [*edit("Penjagaan")["edits"], *edit("77060000", "personel[0].nrp")["edits"]]}
    second = problem(change(client, job_id, "corrections", both, version, X_User_Id="reviewer-b"))
    assert (second["code"], second["field"], second["version"]) == ("conflict", "If-Match", 2)
    assert second["current"] == [
        {"field_path": PERIHAL, "value": "Patroli"},
        {"field_path": "personel[0].nrp", "value": "7706OOOO"},
    ]
    # Theirs stands, and the second field is still to be corrected.
    mine = edit("77060000", "personel[0].nrp", expected="7706OOOO")
    assert change(client, job_id, "corrections", mine, second["version"], X_User_Id="reviewer-b").status_code == 200
    guarded = problem(change(client, job_id, "corrections", edit("x", expected=None), 3))
    assert (guarded["field"], guarded["current"]) == (PERIHAL, [{"field_path": PERIHAL, "value": "Patroli"}])
    job = store.job(job_id)
    assert prove(reverse(job.result, store.events(job_id)), job.initial_sha256) is None


def test_an_approval_brings_its_corrections_along(api):
    store, app = api
    job_id = letter(store)
    client = client_of(app)
    both = {"edits": [*edit("Patroli")["edits"], *edit("77060000", "personel[0].nrp", expected="x")["edits"]]}
    refused = problem(change(client, job_id, "approve", both, 1))
    assert (refused["code"], refused["field"]) == ("conflict", "personel[0].nrp")
    assert change(client, job_id, "approve", edit("Patroli", "header.hal"), 1).status_code == 422
    assert (store.job(job_id).version, store.events(job_id)) == (1, [])
    del both["edits"][1]["expected"]
    done = change(client, job_id, "approve", both | {"reason": "keliru"}, 1)
    assert (done.json()["approved"], done.headers["etag"]) == (True, '"2"')
    assert [event.reason for event in store.events(job_id)] == ["keliru"] * 2
    assert change(client, job_id, "approve", both, 1).status_code == 409


def test_of_many_at_once_one_wins_each_round(api):
    store, app = api
    job_id = letter(store)
    statuses, barrier = [], threading.Barrier(6)

    def review(number):
        client = client_of(app)
        barrier.wait()
        statuses.append(change(client, job_id, "corrections", edit(f"Patroli {number}"), 1).status_code)

    threads = [threading.Thread(target=review, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 5
    assert len(store.events(job_id)) == 1


def test_a_letter_from_first_output_to_approved_answer(api):
    store, app = api
    job_id = letter(store)
    client = client_of(app)
    row = {
        "op": "add",
        "field_path": "personel[0]",
        "value": result_data(Result(personel=(Personel(),)))["personel"][0],
    }
    batch = {"edits": [*edit("Patroli")["edits"], row, {"op": "remove", "field_path": "personel[2]", "expected": None}]}
    refused = change(client, job_id, "corrections", batch, 1)
    assert problem(refused)["current"][-1]["value"]["nama"] == "ANI"
    del batch["edits"][2]["expected"]
    assert len(change(client, job_id, "corrections", batch, 1).json()["result"]["personel"]) == 2
    again = change(client, job_id, "corrections", edit("Patroli"), 2)
    assert (again.status_code, again.headers["etag"]) == (200, '"2"'), "what changes nothing leaves no trace"
    assert change(client, job_id, "approve", version=2).json()["approved"] is True
    undone = change(client, job_id, "undo", {"reason": "keliru"}, 3).json()
    assert (undone["approved"], undone["result"]["header"]["perihal"]) == (False, None)
    assert problem(change(client, job_id, "undo", {"batch": 1}, 4))["code"] == "conflict"
    kinds = [entry["kind"] for entry in client.get(f"{JOBS}/{job_id}/trail").json()["entries"]]
    assert kinds == ["runs", "events", "events", "events", "approvals", "events", "events", "events", "approvals"]
    assert change(client, job_id, "approve", version=4).status_code == 200
    line = json.loads(client.get(f"{TRUTH}/export").text)
    assert (line["initial_result"], len(line["corrections"])) == (line["final_result"], 6)


def test_a_second_review_is_blind(api):
    store, app = api
    job_id = letter(store)
    tokens = {name: create_token(store, name, "reviewer") for name in ("reviewer-a", "reviewer-b")}
    first, second = (client_of(app, text) for text in tokens.values())
    assert problem(second.get(f"{JOBS}/{job_id}/second-review"))["code"] == "not_reviewable"
    change(first, job_id, "corrections", edit("Patroli"), 1)
    change(first, job_id, "approve", version=2)
    for answer in (
        first.get(f"{JOBS}/{job_id}/second-review"),
        first.post(f"{JOBS}/{job_id}/second-review", json={"run": 1, "edits": []}),
    ):
        assert (answer.status_code, problem(answer)["code"]) == (403, "not_blind")
    seen = second.get(f"{JOBS}/{job_id}/second-review").json()
    assert seen["result"]["header"]["perihal"] is None
    assert "Patroli" not in json.dumps(seen)
    stale = second.post(f"{JOBS}/{job_id}/second-review", json={"run": 9, "edits": []})
    assert (stale.status_code, problem(stale)["code"]) == (409, "conflict")
    answer = second.post(f"{JOBS}/{job_id}/second-review", json={"run": seen["run"], **edit("Patroli")})
    assert (answer.status_code, answer.json()["agrees"]) == (201, True)
    twice = second.get(f"{JOBS}/{job_id}/second-review")
    assert (twice.status_code, problem(twice)["code"]) == (403, "not_blind")
    assert client_of(app, tokens["reviewer-a"]).get(f"{TRUTH}/stats").json()["second_reviews_agreeing"] == 1


def test_what_has_no_result_cannot_be_reviewed(api):
    store, app = api
    client = client_of(app)
    failed = store.add_job(**{**new_job(1), "result": None, "error": "torn.pdf: damaged", "confidence": None})
    waiting = submit(store, "a.png", png(4, 4)).job_id
    for job_id in (failed, waiting):
        answers = [client.get(f"{JOBS}/{job_id}/result")]
        answers += [
            change(client, job_id, what, body, 1)
            for what, body in (("corrections", edit(1)), ("undo", {}), ("approve", None))
        ]
        assert [(answer.status_code, problem(answer)["code"]) for answer in answers] == [(409, "no_result")] * 4
    missing = uuid.uuid4()
    answers = [
        client.get(f"{JOBS}/{missing}{part}") for part in ("", "/result", "/trail", "/pages/1", "/second-review")
    ]
    answers += [change(client, missing, what, body, 1) for what, body in (("corrections", edit(1)), ("approve", None))]
    answers.append(client.delete(f"{JOBS}/{missing}"))
    assert [answer.status_code for answer in answers] == [404] * 8


@pytest.mark.parametrize("path", [f"{TRUTH}/export", f"{TRUTH}/stats", JOBS, "/metrics", f"{TRUTH}/changes"])
@pytest.mark.parametrize("query", ["aproved_only=true", "limit=1&limit=2", "x", "%00=1"])
def test_unknown_and_repeated_parameters_are_named(local, path, query):
    _, app = local
    answer = client_of(app).get(f"{path}?{query}")
    assert answer.status_code == 422
    name = "limit" if "limit" in query else "\0" if "%00" in query else query.split("=")[0]
    assert problem(answer)["field"] == name


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("since", "2025-06-01T10:15:00", "no time zone"),
        ("until", "2025-06-01T10:15:00", "no time zone"),
        ("since", "yesterday", "is no time"),
        ("since", "9999-12-31T23:59:59.5Z", ""),
        ("approved_only", "yes", "true or false"),
        ("has_corrections", "1", "true or false"),
        ("has_corrections", "", "true or false"),
        ("limit", "-1", "greater"),
        ("limit", "ten", "integer"),
        ("limit", "99999999999999999999", "less"),
        ("as_of", "2025-06-01T10:15", "no time zone"),
    ],
)
def test_filters_are_named_when_they_do_not_fit(local, name, value, words):
    _, app = local
    client = client_of(app)
    live = client.get(f"{TRUTH}/export", params={name: value})
    frozen = client.post(f"{TRUTH}/snapshots", json={name: value})
    if words or live.status_code == 422:
        assert {answer.status_code for answer in (live, frozen)} == {422}
        assert problem(live)["field"] in (name, "until")
        assert words in problem(live)["message"]


def test_a_body_that_chooses_nothing_may_be_left_out(local):
    store, app = local
    fill(store, 3)
    client = client_of(app)
    frozen = [
        client.post(f"{TRUTH}/snapshots", **sent) for sent in ({}, {"json": {}}, {"headers": {"Content-Length": "0"}})
    ]
    assert {answer.status_code for answer in frozen} == {201}
    assert {answer.json()["sha256"] for answer in frozen} == {frozen[0].json()["sha256"]}
    assert frozen[0].json()["filters"]["approved_only"] is True
    for content in ("null", "[]", " "):
        answer = client.post(f"{TRUTH}/snapshots", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
    assert client.post(f"{TRUTH}/snapshots", content="{}").status_code == 415
    operations = app.openapi()["paths"]
    wanted = {
        path: operations[path]["post"]["requestBody"].get("required", False)
        for path in operations
        if "post" in operations[path] and "requestBody" in operations[path]["post"]
    }
    free = [path.rsplit("/", 1)[-1] for path, needed in wanted.items() if not needed]
    assert free == ["snapshots", "undo", "approve"]


def test_a_period_that_ends_before_it_begins(local):
    _, app = local
    period = {"since": "2025-06-02", "until": "2025-06-01"}
    for answer in (
        client_of(app).get(f"{TRUTH}/export", params=period),
        client_of(app).post(f"{TRUTH}/snapshots", json=period),
    ):
        assert (answer.status_code, problem(answer)["field"]) == (422, "until")


def test_statistics_are_those_of_the_command(url, tmp_path, capsys):
    from ocr_sprint.tools.export_ground_truth import main

    with service(url, tmp_path) as (store, app):
        fill(store)
        assert main(["--out", str(tmp_path / "corpus.jsonl"), "--print-stats", "--store", url]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["unreplayable"] == 0
        assert client_of(app).get(f"{TRUTH}/stats", params={"prove": "true"}).json() == printed
        assert client_of(app).get(f"{TRUTH}/stats").json() == printed | {"unreplayable": None}
        quick = client_of(app).get(f"{TRUTH}/stats", params={"prove": "false", "top": "1"}).json()
        assert (quick["unreplayable"], len(quick["top_corrected_fields"])) == (None, 1)
        ready = client_of(app).get(f"{TRUTH}/readiness").json()
        assert {"usable", "buckets", "units", "tables", "review_next"} <= set(ready)


def test_the_feed_folds_to_the_export(url, tmp_path):
    with service(url, tmp_path) as (store, app):
        job_ids = fill(store, 9)
        client, corpus, cursor = client_of(app), {}, None

        def follow(cursor):
            while True:
                query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
                part = client.get(f"{TRUTH}/changes", params=query).json()
                corpus.update((change["job_id"], change["line"]) for change in part["changes"])
                cursor = part["cursor"]
                if not part["more"]:
                    return cursor

        def folded():
            lines = sorted(
                filter(None, corpus.values()),
                key=lambda line: (json.loads(line)["created_at"], json.loads(line)["job_id"]),
            )
            return "".join(lines)

        cursor = follow(cursor)
        assert folded() == client.get(f"{TRUTH}/export").text
        store.correct(job_ids[1], [Edit("set", PERIHAL, "x")], by="reviewer-a")
        store.approve(job_ids[3], by="reviewer-a")
        assert client.delete(f"{JOBS}/{job_ids[4]}").status_code == 204
        follow(cursor)
        assert corpus[job_ids[1]] is corpus[job_ids[4]] is None
        assert folded() == client.get(f"{TRUTH}/export").text
        other = client.get(f"{TRUTH}/changes", params={"cursor": cursor, "approved_only": "false"})
        assert (other.status_code, problem(other)["field"]) == (422, "cursor")


def upload(client, content, name="surat.pdf", field="file"):
    return client.post(JOBS, files={field: (name, content)})


def test_uploads_are_what_their_bytes_say(api):
    store, app = api
    client = client_of(app)
    first = upload(client, png(20, 30), "../../etc/passwd\\surat.pdf")
    assert (first.status_code, first.json()["new"]) == (202, True)
    job_id = first.json()["job_id"]
    assert first.headers["location"] == f"{JOBS}/{job_id}"
    again = upload(client, png(20, 30), "other.pdf").json()
    assert again == {"job_id": job_id, "new": False}
    state = client.get(f"{JOBS}/{job_id}").json()
    assert (state["status"], state["source_kind"], state["filename"]) == (
        "queued",
        "image",
        "../../etc/passwd\\surat.pdf",
    )
    page = client.get(f"{JOBS}/{job_id}/pages/1?long_side=20")
    assert (page.status_code, page.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(page.content)).size == (13, 20)
    assert "\\" not in page.headers["content-disposition"].split(";")[1]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert store.job(job_id).status == "queued"


@pytest.mark.parametrize(
    ("content", "name", "field", "status"),
    [
        (b"", "a.pdf", "file", 415),
        (b"MZ\x90 a program", "a.pdf", "file", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.png", "file", 415),
        (b"%PDF-1.7" + bytes(200_001), "a.pdf", "file", 413),
        (b"%PDF-1.7" + bytes(2_000_000), "a.pdf", "file", 413),
        (b"%PDF-1.7", "x" * 256, "file", 422),
        (b"%PDF-1.7", "a.pdf", "letter", 422),
    ],
)
def test_what_is_no_letter_is_refused(local, content, name, field, status):
    store, app = local
    answer = upload(client_of(app), content, name, field)
    assert answer.status_code == status
    assert problem(answer)["field"] in ("file", "body")
    assert list(store.jobs()) == []


def test_an_upload_is_counted_as_it_comes(local):
    _, app = local
    read = 0

    def body():
        nonlocal read
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n%PDF-1.7'
        for _ in range(1_000):
            read += 1
            yield bytes(10_000)
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client_of(app).post(JOBS, content=body(), headers=headers)
    assert answer.status_code == 413
    assert problem(answer)["code"] == "too_large"
    honest = client_of(app).post(JOBS, content=b"", headers=headers | {"Content-Length": "99999999"})
    assert honest.status_code == 413


def bomb(width, height):
    """A PNG of a few KB that says it is huge, with so much data that it can be decoded."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def pdf_bomb(side):
    "A PDF of a few hundred bytes with a page of any size."
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>"]
    objects.append(b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]>>" % (side, side))
    data, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj%sendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (
        data
        + b"xref\n0 4\n0000000000 65535 f \n"
        + table
        + b"trailer<</Size 4/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(data)
    )


def test_bombs_are_not_drawn(local):
    _, app = local
    client = client_of(app)
    for content in (bomb(12_000, 12_000), bomb(100_000, 100)):
        assert len(content) < 20_000
        job_id = upload(client, content).json()["job_id"]
        answer = client.get(f"{JOBS}/{job_id}/pages/1")
        assert answer.status_code in (200, 409)
        if answer.status_code == 200:
            assert max(Image.open(io.BytesIO(answer.content)).size) <= 2400
        else:
            assert problem(answer)["code"] == "not_drawn"
    huge = upload(client, pdf_bomb(14_400)).json()["job_id"]
    answer = client.get(f"{JOBS}/{huge}/pages/1")
    assert answer.status_code == 409 or max(Image.open(io.BytesIO(answer.content)).size) <= 2400
    assert client.get("/health").status_code == 200


def test_pages_are_drawn_within_bounds(local):
    _, app = local
    client = client_of(app)
    job_id = upload(client, png(40, 60)).json()["job_id"]
    for query in ("long_side=4801", "long_side=15", "long_side=-1", "dpi=300"):
        assert client.get(f"{JOBS}/{job_id}/pages/1?{query}").status_code == 422
    for number in ("0", "-1", "201", "one"):
        assert problem(client.get(f"{JOBS}/{job_id}/pages/{number}"))["field"] == "number"
    assert client.get(f"{JOBS}/{job_id}/pages/2").status_code in (404, 409)


def test_rates_are_counted_per_token_and_kind(url, tmp_path):
    rates = Rates(requests="8/minute", uploads="2/minute", exports="3/minute")
    with service(url, tmp_path, rates=rates) as (store, app):
        tokens = [create_token(store, name, "admin") for name in ("a", "b")]
        first, second = (client_of(app, text) for text in tokens)
        uploads = [upload(first, png(4, number + 1)).status_code for number in range(3)]
        exports = [first.get(f"{TRUTH}/export").status_code for _ in range(4)]
        assert (uploads, exports) == ([202, 202, 429], [200, 200, 200, 429])
        assert first.get(JOBS).status_code == 200
        refused = first.get(JOBS)
        assert (refused.status_code, problem(refused)["code"]) == (429, "too_many_requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert second.get(JOBS).status_code == 200
        assert client_of(app, "osk_no").get(JOBS).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", f"{JOBS}/", 404, "not_found"),
        ("GET", f"{JOBS}/not-a-uuid", 422, "invalid"),
        ("PUT", JOBS, 405, "method_not_allowed"),
        ("OPTIONS", f"{TRUTH}/snapshots", 405, "method_not_allowed"),
        ("HEAD", JOBS, 405, None),
        ("GET", f"{TRUTH}/snapshots/6f0d8f4e-3b0c-4d0e-9a53-6b1f8a7f2c11", 404, "not_found"),
        ("GET", f"{TRUTH}/snapshots/..%2F..%2Fstore/corpus.jsonl", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", f"{JOBS}?flag=%00", 422, "invalid"),
        ("GET", f"{JOBS}?satuan=%00", 422, "invalid"),
        ("GET", f"{JOBS}?cursor=%F0%9F%98%80", 422, "invalid"),
    ],
)
def test_every_error_has_the_one_shape(local, method, path, status, code):
    _, app = local
    answer = client_of(app).request(method, path)
    assert answer.status_code == status
    if code:
        assert problem(answer)["code"] == code
    if status == 405:
        paths = {path: sorted(map(str.upper, found)) for path, found in app.openapi()["paths"].items()}
        assert answer.headers["allow"].split(", ") == paths[path]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_bug_of_ours_tells_nothing(local, monkeypatch):
    _, app = local

    def broken(*_, **__):
        raise RuntimeError("secret of the house")

    monkeypatch.setattr("ocr_sprint.api.ground_truth.statistics", broken)
    answer = client_of(app).get(f"{TRUTH}/stats")
    assert (answer.status_code, problem(answer)["code"]) == (500, "internal")
    assert "secret" not in answer.text


def test_a_database_that_is_locked_asks_to_come_again(new_url, tmp_path, monkeypatch):
    monkeypatch.setattr("ocr_sprint.review.database.BUSY_MS", 50)
    monkeypatch.setattr("ocr_sprint.review.database._PRAGMAS", ("foreign_keys = ON", "busy_timeout = 50"))
    from ocr_sprint.review.database import writing

    with service(new_url("sqlite"), tmp_path) as (store, app):
        job_id = store.add_job(**new_job(1))
        with writing(store.engine):
            answer = change(client_of(app), job_id, "approve", version=1)
        assert (answer.status_code, problem(answer)["code"]) == (503, "unavailable")
        assert "store.db" not in answer.text
        assert change(client_of(app), job_id, "approve", version=1).status_code == 200


def test_erasure_leaves_no_copy_with_the_service(api):
    store, app = api
    client = client_of(app)
    job_id = upload(client, png(33, 44)).json()["job_id"]
    assert client.get(f"{JOBS}/{job_id}/pages/1").status_code == 200
    frozen = client.post(f"{TRUTH}/snapshots", json={"approved_only": False}).json()
    answer = client.delete(f"{JOBS}/{job_id}", params={"reason": "request 17"}, headers={"X-User-Id": "dpo"})
    assert (answer.status_code, answer.content) == (204, b"")
    for path in (f"{JOBS}/{job_id}", f"{JOBS}/{job_id}/pages/1", f"{TRUTH}/snapshots/{frozen['id']}/corpus.jsonl"):
        assert client.get(path).status_code == 404
    assert list(app.state.service.settings.snapshots.iterdir()) == []
    assert client.get(f"{TRUTH}/changes?approved_only=false").json()["changes"] == [{"job_id": job_id, "line": None}]
    assert upload(client, png(33, 44)).json() == {"job_id": job_id, "new": True}, "it may be sent again"
    assert store.job(job_id).status == "queued"


def test_erasure_forgets_pages_that_were_drawn_and_tidies_the_disk(api, tmp_path):
    store, app = api
    client, scan = client_of(app), png(33, 44)
    job_id = upload(client, scan).json()["job_id"]
    pictures, digest = app.state.service.pictures, store.job(job_id).document_sha256
    drawn = client.get(f"{JOBS}/{job_id}/pages/1")
    asked = []

    def file():
        asked.append(digest)
        return Document("sprint.png", "image/png", scan)

    shown = Picture(digest, 1, 0, None)
    assert (pictures.draw(shown, file), asked) == (drawn.content, []), "it was kept"
    assert client.delete(f"{JOBS}/{job_id}").status_code == 204
    assert scan not in b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert (pictures.draw(shown, file), asked) == (drawn.content, [digest]), "it was forgotten"


def test_erasure_ends_a_snapshot_that_is_being_written(api, monkeypatch):
    store, app = api
    job_id = letter(store)
    erased = []

    def erase_first(*told, **more):
        erased.append(client_of(app).delete(f"{JOBS}/{job_id}").status_code)
        record_export(*told, **more)

    monkeypatch.setattr("ocr_sprint.review.export.record_export", erase_first)
    answer = client_of(app).post(f"{TRUTH}/snapshots", json={"approved_only": False})
    assert (erased, answer.status_code, problem(answer)["code"]) == ([204], 503, "unavailable")
    assert list(app.state.service.settings.snapshots.iterdir()) == []


def test_lists_go_on_where_they_stopped(url, tmp_path):
    with service(url, tmp_path) as (store, app):
        job_ids = fill(store, 7)
        client, found, cursor = client_of(app), [], None
        while True:
            page = client.get(JOBS, params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
            found += [job["job_id"] for job in page["jobs"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert found == job_ids
        queue = client.get(f"{JOBS}?order=queue").json()["jobs"]
        assert [job["approved"] for job in queue] == sorted(job["approved"] for job in queue)
        flagged = client.get(JOBS, params={"flag": "llm_fallback", "approved": "false", "status": "done"}).json()[
            "jobs"
        ]
        assert [job["job_id"] for job in flagged] == [job_ids[number] for number in (0, 3, 6)]
        assert client.get(JOBS, params={"order": "queue", "cursor": "AAAA"}).status_code == 422


def test_metrics_name_nobody(local):
    store, app = local
    job_id = letter(store)
    client = client_of(app)
    for path in (f"{JOBS}/{job_id}/result", f"{JOBS}?satuan=POLRES+GARUT", f"{JOBS}/{uuid.uuid4()}", "/secret-path"):
        client.get(path)
    text = client.get("/metrics").text
    assert 'path="/api/v1/jobs/{job_id}/result",status="200"} 1.0' in text
    assert not [word for word in (job_id, "GARUT", "secret-path", "sprint-001") if word in text]


def test_the_description_is_complete(local):
    _, app = local
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            statuses = set(operation["responses"])
            assert operation["summary"] and operation["description"], (method, path)
            if (method.upper(), path) not in OPEN:
                assert {"401", "403", "422", "429", "503"} <= statuses, (method, path)
                assert operation["security"] == [{"HTTPBearer": []}]
            for status, answer in operation["responses"].items():
                if status >= "400":
                    schema = answer["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
                    assert schema == ("ConflictBody" if status == "409" else "ErrorBody")
