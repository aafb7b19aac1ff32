"""Fictitious jobs and random histories for the tests of the review wing."""

import datetime
from collections.abc import Iterator
from itertools import count

from hypothesis import strategies as st

from ocr_sprint.core.canonical import Json, sha256_hex
from ocr_sprint.review.fieldpath import PathError, format_path
from ocr_sprint.review.jobs import NewJob
from ocr_sprint.review.replay import Drift, Event, apply_event

keys = st.sampled_from(["nama", "nrp", "a.b", "", "x[0]", '"']) | st.text(
    st.characters(exclude_categories=("Cs",)), max_size=3
)
scalars = st.sampled_from([None, False, True, 0, 1, 1.0, -0.0, 0.0, "", "1", "é", "e\u0301", "😀", "\u0000", 2**64 - 1])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
results = st.dictionaries(keys, values, min_size=1, max_size=3)


def places(value: Json, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Json]]:
    """Every path inside a value and what stands there, found by walking and not by the functions under test."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*prefix, key), part
        yield from places(part, (*prefix, key))


@st.composite
def changes(draw: st.DrawFn, state: Json, n: int) -> Event:
    """One event that fits a state: set, add or remove anywhere in it."""
    found = list(places(state))
    path, old = draw(st.sampled_from(found))
    inner = [(path, part) for path, part in found if isinstance(part, dict | list)]
    removable = [(path, part) for path, part in found if len(path) > 1]
    kinds = ["set"] + ["add"] * bool(inner) + ["remove"] * bool(removable)
    kind = draw(st.sampled_from(kinds))
    if kind == "set":
        return Event(n, "set", format_path(path), old, draw(values))
    if kind == "remove":
        path, old = draw(st.sampled_from(removable))
        return Event(n, "remove", format_path(path), old, None)
    path, container = draw(st.sampled_from(inner))
    new_keys = keys.filter(lambda key: key not in container) if isinstance(container, dict) else st.nothing()
    token = draw(new_keys if isinstance(container, dict) else st.integers(0, len(container)))
    return Event(n, "add", format_path((*path, token)), None, draw(values))


def characters(value: Json) -> set[str]:
    """Every character in a value and in its keys."""
    if isinstance(value, str):
        return set(value)
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return set().union(*map(characters, parts))


def corrections(state: Json, n: int) -> st.SearchStrategy[Event]:
    """Changes that a store takes from a reviewer: their values hold no control characters but tab and line break."""
    refused = {chr(code) for code in range(32)} - {"\t", "\n"}
    return changes(state, n).filter(lambda event: not refused & characters(event.new_value))


@st.composite
def histories(draw: st.DrawFn, max_events: int = 6, first: int = 1) -> tuple[Json, list[Event], Json]:
    """A first output, the events that changed it, and the final result."""
    initial = state = draw(results)
    events: list[Event] = []
    for n in range(first, first + draw(st.integers(0, max_events))):
        if not state:
            break
        event = draw(changes(state, n))
        after = apply_event(state, event)
        assert not isinstance(after, Drift | PathError), (state, event, after)
        events.append(event)
        state = after
    return initial, events, state


def new_job(number: int, result: Json = None, **others: object) -> NewJob:
    """A fictitious document with its result; `others` replace single fields."""
    job = {
        "filename": f"sprint-{number:03}.pdf",
        "source_kind": "pdf",
        "document_sha256": sha256_hex(f"letter {number}".encode()),
        "pages": 1,
        "engine": "paddle",
        "result": result or {"header": {"perihal": None}, "personel": [{"nrp": "7706OOOO"}, {"nrp": "8001OOOI"}]},
        "confidence": 0.78,
        "field_confidence": {},
        "evidence": None,
        "review_flags": ["llm_fallback"],
        "ocr_text": "SURAT PERINTAH",
        "error": None,
    }
    return {**job, **others}  # type: ignore[typeddict-item]


class Ticking:
    """A clock that goes on a minute at every look; `now` sets it."""

    def __init__(self, start: str = "2025-05-28T08:00:00+00:00") -> None:
        self.now = datetime.datetime.fromisoformat(start)
        self.looks = count()

    def __call__(self) -> datetime.datetime:
        return self.now + datetime.timedelta(minutes=next(self.looks))
