"""Schemathesis against the whole service, in process, on both backends: it finds nothing.

It sends what the OpenAPI document allows and what it forbids (all combinations of edges, then by chance, then along the
links from one answer to the next) and compares every answer with the document. `OCR_SPRINT_SCHEMA_EXAMPLES` says how
many requests by chance each endpoint gets; the figure in CI is small.
"""

import io
import os
import re
from collections import Counter

import pytest
import schemathesis
from api_samples import service, tokens_of
from hypothesis import strategies as st
from PIL import Image
from review_samples import new_job
from schemathesis import GenerationMode, engine
from schemathesis.engine import events
from schemathesis.python.asgi import shutdown_lifespans

from ocr_sprint.documents.letter import Personel, Result, parse_result, result_data
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.queue import submit

EXAMPLES = int(os.environ.get("OCR_SPRINT_SCHEMA_EXAMPLES", "5"))

# A request can fit the document and still be refused with 422, where OpenAPI has no words for the reason. These are
# all, by operation, with the field that the answer must then name. Everything else that fits must be accepted.
UNSAYABLE = {
    "export": "until",  # a period must not end before it begins
    "post_snapshot": "until",
    "get_changes": "cursor",  # a cursor is opaque, and must be one that the service gave
    "get_jobs": "cursor",
    # A field path must lead somewhere in this very letter, a value must make sense there, and the integers in it,
    # however deep, must fit 64 bits.
    "post_second_review": r"edits\[\d+\](\.field_path)?|body",
    "post_corrections": r"edits\[\d+\](\.field_path)?|body",
}


@schemathesis.check
def refusals_have_a_known_reason(_ctx, response, case):
    if response.status_code == 422 and case.meta.generation.mode == GenerationMode.POSITIVE:
        reason = UNSAYABLE.get(case.operation.definition.raw["operationId"], "nothing")
        assert re.fullmatch(reason, response.json()["error"]["field"] or "no field"), response.text


def png(size):
    file = io.BytesIO()
    Image.new("L", size, 200).save(file, "PNG")
    return file.getvalue()


def configuration(token):
    statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "429", "5xx"]
    return schemathesis.Config.from_dict(
        {
            "seed": 20261121,
            "headers": {"Authorization": f"Bearer {token}"},
            # By chance it is never a name that this token may use; test_api looks at those that it may not.
            "parameters": {"header.x-user-id": "the admin"},
            "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
            "phases": {"stateful": {"max-steps": 8, "generation": {"max-examples": 2 * EXAMPLES}}},
            "checks": {
                # 422 is looked at by refusals_have_a_known_reason.
                "positive_data_acceptance": {"expected-statuses": statuses},
                # RFC 6585 made 428 for exactly this: a change that names no version.
                "missing_required_header": {"expected-statuses": ["401", "422", "428"]},
            },
        }
    )


def findings(recorder):
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                case, interaction = recorder.cases[case_id].value, recorder.interactions.get(case_id)
                answer = interaction.response if interaction else None
                told = (answer.status_code, answer.content[:300]) if answer is not None else None
                failure = check.failure_info.failure
                yield f"{check.name}: {case.operation.label}: {failure.title}: {case.as_curl_command()[:600]} -> {told}"


@pytest.fixture(autouse=True)
def documents():
    """Uploads that are documents: to the OpenAPI document a PNG is only bytes."""
    kinds = ["application/pdf", "image/jpeg", "image/tiff", "image/bmp", "image/webp"]
    pages = st.tuples(st.integers(1, 30), st.integers(1, 30)).map(png)
    schemathesis.openapi.media_type("image/png", pages, aliases=kinds)


def letters(store):
    """A letter in each state that one can be in."""
    result = result_data(Result(personel=(Personel(nama="BUDI", nrp="7706OOOO"),)))
    open_letter, approved, undone = (store.add_job(**new_job(number, result)) for number in range(3))
    store.correct(open_letter, [Edit("set", "header.perihal", "Patroli")], by="reviewer-a")
    store.approve(approved, by="reviewer-a")
    store.correct(undone, [Edit("add", "tembusan[0]", "Kapolri")], by="reviewer-a")
    store.undo(undone, by="reviewer-a")
    store.add_job(**{**new_job(3), "result": None, "error": "torn.pdf: the PDF cannot be opened", "confidence": None})
    submit(store, "sprint-004.png", png((40, 60)))


def test_schemathesis_finds_nothing(url, tmp_path):
    bounds = {"downloads": 100, "all_downloads": 100, "upload_bytes": 100_000}
    with service(url, tmp_path, validate=parse_result, **bounds) as (store, app):
        letters(store)
        config = configuration(tokens_of(store)["admin"])
        schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, config=config)
        found, statuses, phases = [], Counter(), {}
        for event in engine.from_schema(schema).execute():
            if isinstance(event, events.NonFatalError):
                found.append(f"{event.label}: {event.value!r}")
            if isinstance(event, events.PhaseFinished):
                phases[event.phase.name.value] = str(event.status)
            if isinstance(event, events.ScenarioFinished):
                found += findings(event.recorder)
                for interaction in event.recorder.interactions.values():
                    statuses[interaction.response.status_code if interaction.response is not None else 0] += 1
        shutdown_lifespans()
        app.state.service.pictures.close()
    assert not found, "\n".join(found)
    assert {phases[name] for name in ("coverage", "fuzzing", "stateful")} == {"success"}
    assert statuses[200] > 100
    assert {202, 201, 401, 404, 405, 409, 415, 422} <= set(statuses)
    assert not [status for status in statuses if status >= 500]
