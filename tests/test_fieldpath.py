"""Field paths as properties: every address of every JSON value can be written, read and followed (I8 of the guide)."""

import copy

import jsonpointer  # what jsonpatch stands on
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_sprint.core.canonical import Json, canonical
from ocr_sprint.review.fieldpath import (
    PathError,
    add_value,
    fold_path,
    format_path,
    from_pointer,
    get_value,
    parent_path,
    parse_path,
    remove_value,
    set_value,
    to_pointer,
)

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
keys = texts | st.sampled_from(["header", "", "a.b", "a[0]", '"', "\\", "\n", "[", "]", "0", "*"])
tokens = st.tuples(keys, *[keys | st.integers(0, 10**18 - 1)] * 3).flatmap(
    lambda path: st.integers(1, len(path)).map(lambda end: path[:end])
)
scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
objects = st.dictionaries(keys, values, min_size=1, max_size=4)


def addresses(value: Json, prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path inside `value`, found by walking it and not by the functions under test."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, part in items for path in [(*prefix, key), *addresses(part, (*prefix, key))]]


def followed(value: Json, path: tuple[str | int, ...]) -> Json:
    for token in path:
        value = value[token]  # type: ignore[index,call-overload]
    return value


@given(tokens)
def test_i8_what_is_written_is_read(path):
    assert parse_path(format_path(path)) == path


@pytest.mark.parametrize("text", ["header.perihal", "personel[0].nrp", "personel[10]", "dasar[0]", "satuan.kop[2]"])
def test_i8_paths_of_the_requirements_are_unchanged(text):
    assert format_path(parse_path(text)) == text


@given(st.text(alphabet='ab.[]"\\01-', max_size=8))
def test_text_is_read_or_refused_and_never_guessed(text):
    try:
        path = parse_path(text)
    except PathError as error:
        assert error.reason == "bad_path"
        assert error.path == text
    else:
        assert parse_path(format_path(path)) == path
        assert not text.startswith((".", "[0", "[1"))
        assert not text.endswith(".")


@given(objects)
def test_every_value_has_an_address(root):
    for path in addresses(root):
        assert get_value(root, format_path(path)) is followed(root, path)


@given(objects, values, st.data())
def test_changes_are_undone_and_inputs_stay(root, value, data):
    path = data.draw(st.sampled_from(addresses(root)))
    text, before, old = format_path(path), copy.deepcopy(root), followed(root, path)

    changed = set_value(root, text, value)
    assert canonical(get_value(changed, text)) == canonical(value)
    assert canonical(set_value(changed, text, old)) == canonical(before)

    removed = remove_value(root, text)
    assert canonical(add_value(removed, text, old)) == canonical(before)
    assert canonical(root) == canonical(before)
    assert list(root) == list(before)


@given(objects, values, st.data())
def test_a_change_touches_nothing_beside_its_path(root, value, data):
    path = data.draw(st.sampled_from(addresses(root)))
    changed = set_value(root, format_path(path), value)
    others = [other for other in addresses(root) if other[: len(path)] != path and path[: len(other)] != other]
    assert all(followed(changed, other) is followed(root, other) for other in others)


@given(objects, values, st.data())
def test_a_row_is_inserted_before_its_index(root, value, data):
    lists = [path for path in addresses(root) if isinstance(followed(root, path), list)]
    if not lists:
        root = {**root, "rows": [1, 2]}
        lists = [("rows",)]
    path = data.draw(st.sampled_from(lists))
    rows = list(followed(root, path))
    index = data.draw(st.integers(0, len(rows)))
    grown = add_value(root, format_path((*path, index)), value)
    rows.insert(index, value)
    assert canonical(followed(grown, path)) == canonical(rows)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda root: get_value(root, "a.x"), "path_missing"),
        (lambda root: get_value(root, "rows[2]"), "path_missing"),
        (lambda root: get_value(root, "a.b.c"), "container_type"),
        (lambda root: get_value(root, "rows.first"), "container_type"),
        (lambda root: get_value(root, "a[0]"), "container_type"),
        (lambda root: set_value(root, "a.x", 1), "path_missing"),
        (lambda root: set_value(root, "rows[2]", 1), "path_missing"),
        (lambda root: remove_value(root, "rows[2]"), "path_missing"),
        (lambda root: remove_value(root, "none.x"), "container_type"),
        (lambda root: add_value(root, "rows[3]", 1), "path_missing"),
        (lambda root: add_value(root, "a.b", 1), "path_exists"),
        (lambda root: add_value(root, "none[0]", 1), "container_type"),
        (lambda root: get_value(root, "a..b"), "bad_path"),
        (lambda root: get_value(root, "a[99999999999999999999]"), "bad_path"),
    ],
)
def test_errors_carry_their_reason(call, reason):
    with pytest.raises(PathError) as caught:
        call({"a": {"b": 1}, "rows": [1, 2], "none": None})
    assert caught.value.reason == reason


@given(objects)
def test_every_address_is_a_json_pointer_and_back(root):
    for path in addresses(root):
        text = format_path(path)
        assert from_pointer(to_pointer(text), root) == text
        assert jsonpointer.resolve_pointer(root, to_pointer(text)) is followed(root, path)


@given(st.text(alphabet="ab~/01-", max_size=6), objects)
def test_a_pointer_is_read_or_refused_and_never_guessed(pointer, root):
    try:
        path = from_pointer(pointer, root)
    except PathError:
        return
    assert to_pointer(path) == pointer or pointer.endswith("-")


def test_parent_and_folded_paths():
    assert parent_path("personel[3]") == "personel"
    assert parent_path('meta["a.b"].c') == 'meta["a.b"]'
    assert fold_path('rows[3]["a.b"][0].nrp') == 'rows[*]["a.b"][*].nrp'
    with pytest.raises(PathError, match="no parent"):
        parent_path("header")
