"""The invariants of replay over random histories of random JSON, each test named after its own, and single faults.

I1  forward(initial, events) == final               I2  reverse(final, events) == initial
I3  forward(reverse(final, events), events) == final
I4  forward(initial, events[:k]) == reverse(final, events[k:]) for every k
I5  inputs stay as they are                         I6  the order of the rows is nothing
I7  another value at the last corrected path is a drift, never a result
I8  paths are written and read without loss (test_fieldpath.py)
I9  true, 1, 1.0 and "1" are different values       I10 the lowered history leads to the same first output
I11 what is rebuilt has the hash of the first output, or the letter is flagged
I12 all of it over the real API and both databases (test_machine.py)
"""

import copy
import subprocess
import sys
from pathlib import Path

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_samples import changes, histories, places, results, values

from ocr_sprint.core.canonical import canonical, encode, sha256_hex
from ocr_sprint.review.blame import blame
from ocr_sprint.review.fieldpath import format_path, get_value, set_value
from ocr_sprint.review.replay import (
    Drift,
    Event,
    apply_event,
    inverse,
    lower,
    numbered,
    prove,
    replay,
    reverse,
    same,
    states,
    to_json_patch,
    undo_event,
)


def digest(value):
    return sha256_hex(canonical(value))


def is_same(left, right):
    return not isinstance(left, Drift) and not isinstance(right, Drift) and same(left, right)


@given(histories())
def test_i1_forward_leads_to_the_final_result(history):
    initial, events, final = history
    assert is_same(replay(initial, events), final)


@given(histories())
def test_i2_backward_leads_to_the_first_output(history):
    initial, events, final = history
    assert is_same(reverse(final, events), initial)


@given(histories())
def test_i3_there_and_back(history):
    _, events, final = history
    assert is_same(replay(reverse(final, events), events), final)


@given(histories())
def test_i4_every_state_between_is_reached_from_both_ends(history):
    initial, events, final = history
    past = states(final, events)
    assert len(past) == len(events) + 1
    for k, state in enumerate(past):
        assert is_same(state, replay(initial, events[:k]))
        assert is_same(state, reverse(final, events[k:]))


@given(histories())
def test_i5_inputs_stay_as_they_are(history):
    initial, events, final = history
    before = copy.deepcopy(history)
    replay(initial, events)
    states(final, events)
    assert encode(before[0]) == encode(initial)
    assert encode(before[2]) == encode(final)
    assert repr(before[1]) == repr(events)


@given(histories(), st.randoms(use_true_random=False))
def test_i6_rows_may_come_in_any_order(history, random):
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
def test_i7_another_value_at_the_last_corrected_field_is_drift(history, value):
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
def test_i9_values_of_other_types_are_other_values(value):
    assert sum(same(value, other) for other in NEARLY_EQUAL) == 1


@given(histories())
def test_i10_lowered_events_replay_to_the_same_first_output(history):
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
    assert is_same(apply_event(after, inverse(event)), state)
    assert inverse(inverse(event)) == event


@given(histories())
def test_json_patch_of_another_library_comes_to_the_same_states(history):
    initial, events, final = history
    forward = jsonpatch.JsonPatch(to_json_patch(events))
    back = jsonpatch.JsonPatch(to_json_patch([inverse(event) for event in reversed(events)]))
    assert same(forward.apply(initial), final)
    assert same(back.apply(final), initial)


def timed(events, random):
    """The events as rows of another system: ids with gaps, and times that agree with their order or are all equal."""
    step = random.choice([0, 1])
    ids = sorted(random.sample(range(1, 1000), len(events)))
    return [
        event._replace(n=number, corrected_at=f"2025-05-30T14:{place * step:02}:00Z")
        for place, (number, event) in enumerate(zip(ids, events, strict=True))
    ]


@given(histories(), st.randoms(use_true_random=False))
def test_a_foreign_trail_is_numbered_by_time_and_else_by_id(history, random):
    initial, events, final = history
    rows = timed(events, random)
    shuffled = random.sample(rows, len(rows))
    found = numbered(final, shuffled, digest(initial))
    assert not found.reordered
    assert is_same(reverse(final, found.events), initial)
    times = [row.corrected_at for row in rows]
    random.shuffle(times)
    late = [row._replace(corrected_at=time) for row, time in zip(rows, times, strict=True)]
    found = numbered(final, late, digest(initial))
    assert is_same(reverse(final, found.events), initial)


def test_a_foreign_trail_that_fits_in_no_order_names_the_row():
    rows = [Event(40, "set", "nama", "A", "B"), Event(41, "set", "nama", "X", "C")]
    assert numbered({"nama": "C"}, rows) == Drift("value_mismatch", 40, "nama", '"B"', '"X"')
    assert numbered({"nama": "C"}, rows[1:], digest({"nama": "A"})).reason == "hash_mismatch"


@given(histories())
def test_i11_a_first_output_is_proved_and_another_is_not(history):
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
def test_i11_no_single_fault_makes_a_first_output_that_never_was(history, data):
    initial, events, final = history
    if not events and not list(places(final)):
        return
    final, events = mutated(data.draw, final, events)
    rebuilt = reverse(final, events)
    caught = isinstance(rebuilt, Drift) or prove(rebuilt, digest(initial)) is not None
    assert caught or same(rebuilt, initial)


@given(results, results)
def test_i11_a_result_edited_by_hand_fails_its_proof(initial, edited):
    assert (prove(reverse(edited, []), digest(initial)) is None) == same(initial, edited)


def leaves(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for part in inner for leaf in leaves(part)]


@given(histories())
def test_every_value_is_blamed_on_the_event_that_wrote_it(history):
    initial, events, final = history
    found = blame(final, events)
    assert list(found) == [format_path(path) for path, value in places(final) if not isinstance(value, dict | list)]
    for path, event in found.items():
        written = leaves(initial if event is None else event.new_value)
        assert any(same(get_value(final, path), value) for value in written)


def test_drift_shows_no_personal_data():
    drift = reverse({"nama": "BUDI"}, [Event(1, "set", "nama", "BUDI SANTOSO", "ANDI")])
    assert str(drift) == "event 1 (nama): value_mismatch"
    assert (drift.expected, drift.found) == ('"ANDI"', '"BUDI"')


@pytest.mark.parametrize(("campaign", "tried"), [("replay.py", "300 histories"), ("faults.py", "| all")])
def test_a_small_campaign_finds_what_the_large_one_found(campaign, tried):
    script = Path(__file__).parent.parent / "bench" / campaign
    number = "300" if campaign == "replay.py" else "80"
    done = subprocess.run(
        [sys.executable, script, "--n", number, "--seed", "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert tried in done.stdout
