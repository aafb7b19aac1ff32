"""The invariants of replay over random histories of random JSON, and a campaign of single faults."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_samples import changes, histories, places, results, values

from ocr_sprint.core.canonical import canonical, encode, sha256_hex
from ocr_sprint.review.fieldpath import format_path, set_value
from ocr_sprint.review.replay import (
    Drift,
    Event,
    apply_event,
    lower,
    prove,
    replay,
    reverse,
    same,
    states,
    undo_event,
)


def digest(value):
    return sha256_hex(canonical(value))


def is_same(left, right):
    return not isinstance(left, Drift) and not isinstance(right, Drift) and same(left, right)


@given(histories())
def test_there_and_back(history):
    initial, events, final = history
    assert is_same(replay(initial, events), final)
    assert is_same(reverse(final, events), initial)
    assert is_same(replay(reverse(final, events), events), final)


@given(histories())
def test_every_state_between(history):
    initial, events, final = history
    past = states(final, events)
    assert len(past) == len(events) + 1
    for k, state in enumerate(past):
        assert is_same(state, replay(initial, events[:k]))
        assert is_same(state, reverse(final, events[k:]))


@given(histories())
def test_inputs_stay_as_they_are(history):
    initial, events, final = history
    before = copy.deepcopy(history)
    replay(initial, events)
    states(final, events)
    assert encode(before[0]) == encode(initial)
    assert encode(before[2]) == encode(final)
    assert repr(before[1]) == repr(events)


@given(histories(), st.randoms(use_true_random=False))
def test_rows_may_come_in_any_order(history, random):
    initial, events, final = history
    shuffled = events.copy()
    random.shuffle(shuffled)
    assert is_same(reverse(final, shuffled), initial)
    assert is_same(replay(initial, shuffled), final)


@given(histories(first=4))
def test_the_first_number_is_free(history):
    initial, events, final = history
    assert is_same(reverse(final, events), initial)


@given(histories(), values)
def test_another_value_at_the_last_corrected_field_is_drift(history, value):
    _, events, final = history
    if not events or events[-1].op == "remove" or same(events[-1].new_value, value):
        return
    found = reverse(set_value(final, events[-1].field_path, value), events)
    assert isinstance(found, Drift)
    assert (found.reason, found.event) == ("value_mismatch", events[-1].n)
    assert found.expected == canonical(events[-1].new_value).decode()
    assert found.found == canonical(value).decode()


NEARLY_EQUAL = [0, 0.0, False, None, "", [], {}, "0", [0], [False], {"a": 1}, {"a": 1.0}, {"a": True}]


@pytest.mark.parametrize("value", NEARLY_EQUAL)
def test_values_of_other_types_are_other_values(value):
    assert sum(same(value, other) for other in NEARLY_EQUAL) == 1


@given(histories())
def test_lowered_events_replay_to_the_same_first_output(history):
    initial, events, final = history
    lowered = lower(events, states(final, events))
    assert {event.op for event in lowered} <= {"set"}
    assert is_same(reverse(final, lowered), initial)
    assert is_same(replay(initial, lowered), final)


@given(histories(), st.data())
def test_an_event_undoes_itself(history, data):
    _, _, state = history
    if not state:
        return
    event = data.draw(changes(state, 1))
    after = apply_event(state, event)
    assert is_same(undo_event(after, event), state)


@given(histories())
def test_a_first_output_is_proved_and_another_is_not(history):
    initial, events, final = history
    assert prove(reverse(final, events), digest(initial)) is None
    other = prove({**initial, "new key of nobody": 1}, digest(initial))
    assert other == Drift("hash_mismatch", expected=digest(initial), found=digest({**initial, "new key of nobody": 1}))


def mutated(draw, final, events):
    """One random fault: another value in the result, or another field of one event."""
    found = list(places(final))
    if found and (not events or draw(st.booleans())):
        path, old = draw(st.sampled_from(found))
        value = draw(values.filter(lambda value: not same(value, old)))
        return set_value(final, format_path(path), value), events
    at = draw(st.integers(0, len(events) - 1))
    event = events[at]
    fault = draw(st.sampled_from(["old_value", "new_value", "op", "field_path", "missing", "doubled"]))
    if fault == "missing":
        return final, events[:at] + events[at + 1 :]
    if fault == "doubled":
        return final, [*events, event]
    other = {
        "op": st.sampled_from(["set", "add", "remove"]),
        "field_path": st.sampled_from([format_path(path) for path, _ in found] or ["x"]),
    }.get(fault, values)
    value = draw(other)
    return final, [*events[:at], event._replace(**{fault: value}), *events[at + 1 :]]


@given(histories(), st.data())
def test_no_single_fault_makes_a_first_output_that_never_was(history, data):
    initial, events, final = history
    if not events and not list(places(final)):
        return
    final, events = mutated(data.draw, final, events)
    rebuilt = reverse(final, events)
    caught = isinstance(rebuilt, Drift) or prove(rebuilt, digest(initial)) is not None
    assert caught or same(rebuilt, initial)


@given(results, results)
def test_a_result_edited_by_hand_fails_its_proof(initial, edited):
    assert (prove(reverse(edited, []), digest(initial)) is None) == same(initial, edited)


def test_drift_shows_no_personal_data():
    drift = reverse({"nama": "BUDI"}, [Event(1, "set", "nama", "BUDI SANTOSO", "ANDI")])
    assert str(drift) == "event 1 (nama): value_mismatch"
    assert (drift.expected, drift.found) == ('"ANDI"', '"BUDI"')
