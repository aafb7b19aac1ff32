"""Apps, clients and letters for the tests of the service."""

from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient
from review_samples import Ticking, new_job

from ocr_sprint.api.app import create_app
from ocr_sprint.api.rates import Rates
from ocr_sprint.api.service import Settings
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.store import open_store
from ocr_sprint.review.tokens import create_token

NO_RATES = Rates("100000/second", "100000/second", "100000/second")
LOCAL = ("127.0.0.1", 50_000)
TRUTH = "/api/v1/ground-truth"
JOBS = "/api/v1/jobs"


def fill(store, count=5):
    """Letters: every second one corrected, two of three approved; their ids, oldest first."""
    job_ids = []
    for number in range(count):
        job_id = store.add_job(**new_job(number))
        if number % 2 == 0:
            edits = [Edit("set", "header.perihal", f"Patroli {number} é"), Edit("remove", "personel[1]")]
            store.correct(job_id, edits, by="reviewer-a", reason="salah baca")
        if number % 3:
            store.approve(job_id, by="reviewer-b")
        job_ids.append(job_id)
    return job_ids


@contextmanager
def service(url, folder, *, validate=None, clock=None, **settings):
    """A store and an app over it."""
    with open_store(url, clock=clock or Ticking(), validate=validate) as store:
        chosen = {"rates": NO_RATES, **settings}
        yield store, create_app(store, Settings(Path(folder) / "snapshots", **chosen))


def client_of(app, token=None, address=LOCAL, **headers):
    """A client at this machine, with a token when one is given."""
    sent = {"Authorization": f"Bearer {token}"} if token else {}
    return TestClient(app, "http://127.0.0.1", client=address, headers=sent | headers, raise_server_exceptions=False)


def tokens_of(store, **more):
    """A token for each role."""
    return {role: create_token(store, f"the {role}", role, **more) for role in ("viewer", "reviewer", "admin")}


def problem(answer):
    """The error of an answer, which has the one shape and the right type."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert {"code", "message", "field"} <= set(body["error"])
    assert "Traceback" not in answer.text
    assert "\n" not in body["error"]["message"]
    return body["error"]
