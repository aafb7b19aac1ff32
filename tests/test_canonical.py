"""Canonical JSON: what is written reads back as the same value, and different values have different bytes."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_sprint.core.canonical import Json, canonical, decode, encode
from ocr_sprint.core.errors import DataError

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(scalars, lambda part: st.lists(part) | st.dictionaries(text, part), max_leaves=30)


def typed(value: Any) -> Any:
    """The value with the type of each part beside it, since 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {key: typed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [typed(part) for part in value]
    return type(value), repr(value)


@given(values)
def test_reading_gives_back_what_was_written(value: Any) -> None:
    assert typed(decode(encode(value))) == typed(value)
    assert typed(decode(canonical(value).decode())) == typed(value)


@given(st.dictionaries(text, scalars), st.randoms(use_true_random=False))
def test_canonical_bytes_do_not_depend_on_key_order(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    shuffled = {key: value[key] for key in keys}
    assert canonical([{"part": shuffled}]) == canonical([{"part": value}])
    assert list(json.loads(encode(shuffled))) == keys


@given(values, values)
def test_equal_bytes_mean_equal_values_of_equal_type(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (typed(one) == typed(other))


def test_numbers_of_different_type_differ() -> None:
    lookalikes: list[Json] = [1, 1.0, True, "1", [1], None, 0, 0.0, -0.0, False, ""]
    assert len({canonical(value) for value in lookalikes}) == len(lookalikes)


def test_keys_are_sorted_by_code_point() -> None:
    # UTF-16 order, as in RFC 8785, would put U+1F600 before U+FB33.
    assert canonical({"\U0001f600": 1, "דּ": 2, "a": 3, "Z": 4}) == '{"Z":4,"a":3,"דּ":2,"\U0001f600":1}'.encode()


@given(values, st.sampled_from([None, 0, 2]), st.booleans())
def test_any_spelling_of_a_value_is_read(value: Any, indent: int | None, ascii_only: bool) -> None:
    spelled = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert typed(decode(spelled)) == typed(value)
    assert typed(decode(f" {spelled}\r\n".encode())) == typed(value)


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "value is nan"),
        ({"a": [1, float("-inf")]}, "value.a[1] is -inf"),
        ({"a": (1, 2)}, "value.a is of type tuple"),
        ({1: 2}, "has the key 1; keys are text"),
        (2**64, "beyond 64 bits"),
        (-(2**63) - 1, "beyond 64 bits"),
        ({"\ud800": 1}, "half of a surrogate pair"),
        (["\udfff"], "value[0] holds half of a surrogate pair"),
        ([{"id": uuid4()}], "value[0].id is of type UUID"),
        ([Name("x")], "value[0] is of type Name"),
        (b"x", "value is of type bytes"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(value: Any, reason: str) -> None:
    for write in (encode, canonical):
        with pytest.raises(DataError) as caught:
            write(value)
        assert reason in str(caught.value)


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(DataError, match="nested deeper"):
        encode(loop)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"NaN", "unexpected character"),
        (b"[Infinity]", "unexpected character"),
        (b"[-Infinity]", "no digit"),
        (b"1e400", "infinity"),
        (b'{"a":1,"a":1}', "'a' occurs twice"),
        (b'[{"b":{"a":1,"\\u0061":2}}]', "'a' occurs twice"),
        (b"18446744073709551616", "beyond 64 bits"),
        (b"-9223372036854775809", "beyond 64 bits"),
        (b"[" + b"9" * 5000 + b"]", ""),
        (b'"\\ud800"', "surrogate"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        ('"\ud800"', "UTF-8"),
        (b'"\xff"', "UTF-8"),
        (b"", "empty"),
        (b"{} {}", "unexpected"),
        (b"[1,]", "comma"),
        (b'"\n"', "control character"),
        (b"\xef\xbb\xbf1", "BOM"),
        (b"[" * 300 + b"]" * 300, "nested deeper"),
        (b"[" * 100_000 + b"]" * 100_000, "depth"),
    ],
)
def test_what_would_be_guessed_or_lost_is_refused(data: bytes | str, reason: str) -> None:
    with pytest.raises(DataError, match=r"^not a JSON value: ") as caught:
        decode(data)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.binary())
def test_bytes_are_either_a_value_that_can_be_written_again_or_a_data_error(data: bytes) -> None:
    try:
        value = decode(data)
    except DataError:
        return
    assert typed(decode(encode(value))) == typed(value)
