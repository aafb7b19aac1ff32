"""Pseudonyms: the corpus replays, people are the same everywhere and recognisable nowhere, formats stay."""

import datetime
import re
import string

import orjson
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from review_samples import histories

from ocr_sprint.core.canonical import Json, canonical
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.documents.dice import Dice
from ocr_sprint.documents.fiction import fictitious
from ocr_sprint.documents.identifiers import check_nip, check_nrp
from ocr_sprint.documents.letter import parse_result, result_data
from ocr_sprint.documents.people import RANK_OF, draw_name, draw_nip, draw_nrp, with_degrees
from ocr_sprint.review.fieldpath import get_value, set_value
from ocr_sprint.review.pseudonym_book import Book, carried
from ocr_sprint.review.pseudonym_values import number_pseudonym, permuted, rewrite_name, rewrite_number
from ocr_sprint.review.pseudonyms import make_key, pseudonymise, read_key
from ocr_sprint.review.replay import Event, lower, reverse, same, states

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
DAY = datetime.date(2025, 5, 28)


def line(initial, final, corrections=(), **others) -> bytes:
    """A ground-truth line."""
    values = {
        "job_id": "c5da6747",
        "filename": "sprint-042.pdf",
        "source_kind": "pdf",
        "approved": True,
        "reviewed_by": "reviewer-a",
        "reviewed_at": "2025-06-01T10:15:00Z",
        "created_at": "2025-05-28T08:02:17Z",
        "initial_result": initial,
        "final_result": final,
        "corrections": list(corrections),
        "review_flags": [],
        "confidence": 0.78,
    }
    return orjson.dumps({**values, **others}) + b"\n"


def correction(path, old, new, reason=None, by="reviewer-a"):
    keys = ("field_path", "old_value", "new_value", "corrected_by", "reason", "corrected_at")
    return dict(zip(keys, (path, old, new, by, reason, "2025-05-30T14:00:00Z"), strict=True))


def shown(text: bytes, key: bytes = KEY) -> dict[str, Json]:
    return orjson.loads(pseudonymise(text, key))


def events_of(values) -> list[Event]:
    return [
        Event(number, "set", made["field_path"], made["old_value"], made["new_value"])
        for number, made in enumerate(values["corrections"], 1)
    ]


def assert_replays(values) -> None:
    found = reverse(values["final_result"], events_of(values))
    assert same(found, values["initial_result"]), found


def spoiled(draw: st.DrawFn, text: str) -> str:
    """What OCR may make of a text: a few characters read wrong, lost or added."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        with_what = draw(st.sampled_from(["", *"O0Il15S8B2ZQMNRE|!., "]))
        text = text[:at] + with_what + text[at + draw(st.integers(0, 1)) :]
    return text


@st.composite
def letters(draw: st.DrawFn) -> bytes:
    """A fictitious letter whose names and numbers were misread, corrected, removed and put into text."""
    state = result_data(fictitious(draw(st.integers(0, 300))))
    made: list[dict[str, Json]] = []

    def change(path: str, new: Json) -> None:
        nonlocal state
        old = get_value(state, path)
        state = set_value(state, path, new)
        made.insert(0, correction(path, new, old, draw(st.none() | st.just(f"as {old} says"))))

    final = state
    people = [row["nama"] for row in state["personel"]]
    for _ in range(draw(st.integers(0, 5))):
        row = draw(st.integers(0, len(state["personel"]) - 1))
        where = f"personel[{row}]"
        match draw(st.integers(0, 4)):
            case 0:
                change(f"{where}.nama", spoiled(draw, get_value(state, f"{where}.nama")))
            case 1:
                change(f"{where}.nrp", spoiled(draw, get_value(state, f"{where}.nrp")))
            case 2:
                change("untuk", [*state["untuk"], f"menunjuk {draw(st.sampled_from(people)).title()} sebagai ketua;"])
            case 3:
                change("personel", [part for i, part in enumerate(state["personel"]) if i != row] or state["personel"])
            case 4:
                change(where, {**get_value(state, where), "nama": draw(st.sampled_from(people))})
    name = draw(st.sampled_from(people)).replace(" ", "_")
    return line(state, final, made, filename=f"{name}.pdf")


@settings(max_examples=300)
@given(letters())
def test_a_pseudonymised_letter_replays(text):
    values = orjson.loads(text)
    assert_replays(values)
    hidden = shown(text)
    assert_replays(hidden)
    past, hidden_past = (states(value["final_result"], events_of(value)) for value in (values, hidden))
    assert len(past) == len(hidden_past)
    # Every state on the way is the pseudonymised state: taking back and exchanging commute.
    for state, hidden_state in zip(past, hidden_past, strict=True):
        moved = {**values, "initial_result": state}
        assert same(shown(orjson.dumps(moved))["initial_result"], hidden_state)


@settings(max_examples=300)
@given(histories())
def test_any_history_replays(history):
    initial, events, final = history
    lowered = lower(events, states(final, events))
    hidden = shown(line(initial, final, [correction(e.field_path, e.old_value, e.new_value) for e in lowered]))
    assert_replays(hidden)


@settings(max_examples=200)
@given(letters())
def test_nobody_of_the_final_answer_is_left_anywhere(text):
    values = orjson.loads(text)
    after = pseudonymise(text, KEY).decode().casefold()
    people = [*values["final_result"]["personel"], values["final_result"]["penandatangan"]]
    for person in people:
        words = re.findall(r"[^\W_]{3,}", rewrite_name(KEY, person["nama"]).identity)
        if len(words) > 1:
            assert not re.search(r"[\W_]+".join(words), after), words
        assert (person["nrp"] or "\0") not in after


@settings(max_examples=200)
@given(letters())
def test_a_letter_stays_a_letter(text):
    before, after = orjson.loads(text), shown(text)
    parse_result(after["final_result"])
    for old, new in zip(before["final_result"]["personel"], after["final_result"]["personel"], strict=True):
        assert {**new, "nama": None, "nrp": None} == {**old, "nama": None, "nrp": None}
        assert check_nrp(new["nrp"]) == check_nrp(old["nrp"])
        assert new["nrp"][:2] == old["nrp"][:2]
        assert check_nip(new["nrp"]) == check_nip(old["nrp"])
    kept = ("header", "satuan", "pertimbangan", "dasar", "tembusan", "lampiran")
    for name in kept:
        assert after["final_result"][name] == before["final_result"][name]
    for name in ("job_id", "approved", "created_at", "reviewed_at", "review_flags", "confidence"):
        assert after[name] == before[name]
    assert list(after) == list(before)


@settings(max_examples=200)
@given(letters())
def test_a_correction_stays_a_correction(text):
    before, after = orjson.loads(text)["corrections"], shown(text)["corrections"]
    for old, new in zip(before, after, strict=True):
        assert same(old["old_value"], old["new_value"]) or not same(new["old_value"], new["new_value"]), (old, new)


# A name and a number read by OCR with a single character wrong.
@st.composite
def slips(draw: st.DrawFn) -> tuple[str, str]:
    dice = Dice(draw(st.integers(0, 10**6)))
    rank = RANK_OF["AIPDA"]
    text = draw(st.sampled_from([draw_name(dice), draw_nrp(dice, rank, DAY), draw_nip(dice, RANK_OF["PENATA"], DAY)]))
    at = draw(st.integers(0, len(text) - 1))
    wrong = draw(st.sampled_from("O0Il15S8B2ZQMNRE").filter(lambda letter: letter != text[at]))
    return text, text[:at] + wrong + text[at + 1 :]


@settings(max_examples=500)
@given(slips())
@example(("77060123", "7706O123"))
@example(("DARSONO", "DAR5ONO"))
def test_one_wrong_letter_stays_one_wrong_letter(slip):
    right, wrong = slip
    rewrite = rewrite_number if right.isdigit() else rewrite_name
    book = Book(lambda text: rewrite(KEY, text), [right], [wrong])
    assert book(wrong) != book(right)
    if sum(map(str.isalpha, wrong)) != 1 or len(right.replace(" ", "")) > 5:
        assert Levenshtein.distance(book(right), book(wrong)) <= 2, (book(right), book(wrong))


@given(st.text(string.ascii_letters + "éü .-'0123456789,", max_size=30), st.text(max_size=30))
def test_any_text_can_be_carried_over(name, other):
    assume(not any("\ud800" <= letter <= "\udfff" for letter in other))
    image = rewrite_name(KEY, name)
    assert carried(name, image) == image.text
    if name and other != name and image.text:
        assert carried(other, image) != image.text or not other


def test_no_two_misreadings_of_a_name_get_one_pseudonym():
    # A name longer than its pseudonym, and misreadings of letters that stand for one and the same place in it.
    right = "HOOOOOOOOOOOOOOOOOOOOOOOOH"
    wrong = [right[:at] + "U" + right[at + 1 :] for at in range(1, len(right) - 1)]
    book = Book(lambda text: rewrite_name(KEY, text), [right], wrong)
    assert len({book(text) for text in (right, *wrong)}) == len(wrong) + 1


def test_a_person_of_a_line_that_does_not_replay_is_hidden_in_its_text():
    final = {"personel": [], "untuk": ["Budi Santoso melapor"]}
    made = [correction("personel[0].nama", "BUDI SANTOSO", "x")]
    after = shown(line(None, final, made, review_flags=["replay_drift"]))
    assert after["final_result"]["untuk"] == ["Nugra Herimarta melapor"]


def test_a_person_has_one_pseudonym_in_every_letter_and_spelling():
    spellings = [
        "BUDI SANTOSO, S.H.",
        "Budi Santoso",
        "BUDI  SANTOSO",
        "H. BUDI SANTOSO, S.H., M.H.",
        "BUDI SANTOSO SH",
    ]
    found = set()
    for number, spelling in enumerate(spellings):
        final = {"personel": [{"nama": spelling, "nrp": "77060123"}], "untuk": [f"order {number} for Budi Santoso"]}
        after = shown(line(final, final, job_id=str(number)))["final_result"]
        assert after["personel"][0]["nrp"] == number_pseudonym(KEY, "77060123")
        found.add(rewrite_name(KEY, after["personel"][0]["nama"]).identity)
        assert rewrite_name(KEY, after["untuk"][0].split(" for ")[1]).identity in found
    assert len(found) == 1


def test_another_key_gives_other_people():
    final = {"personel": [{"nama": "BUDI SANTOSO", "nrp": "77060123"}]}
    one, other = (shown(line(final, final), key)["final_result"]["personel"][0] for key in (KEY, OTHER_KEY))
    assert one["nama"] != other["nama"] and one["nrp"] != other["nrp"]


def test_pseudonyms_are_the_same_in_every_version():
    # Whoever changes a list or a rule breaks the link between a site's old exports and its later ones.
    names = {
        "BUDI SANTOSO": "NUGRA HERIMARTA",
        "Dr. H. M. YUSUF, S.I.K.": "Dr. H. T. DARASATAMA, S.I.K.",
        "DARSONO": "TRIUDIPUTRA",
        "MUH. AGUS B. WIJAYA": rewrite_name(KEY, "MUH. AGUS B. WIJAYA").text,
    }
    assert {name: rewrite_name(KEY, name).text for name in names} == names
    numbers = {"77060123": "77054479", "197706122003121001": "197707092003021675", "770601": "898058"}
    assert {digits: number_pseudonym(KEY, digits) for digits in numbers} == numbers


@given(st.binary(min_size=32, max_size=32), st.integers(1, 3000))
@settings(max_examples=30)
def test_a_permutation_moves_every_number_to_its_own_place(key, size):
    assert sorted(permuted(key, "test", number, size) for number in range(size)) == list(range(size))


def test_two_officers_never_share_a_number():
    dice = Dice("numbers")
    nrps = {draw_nrp(dice, RANK_OF["AIPDA"], DAY) for _ in range(2500)}
    nips = {draw_nip(dice, RANK_OF["PENATA"], DAY, dice.chance(0.5)) for _ in range(1500)}
    for numbers, check in ((nrps, check_nrp), (nips, check_nip)):
        after = {number: number_pseudonym(KEY, number) for number in numbers}
        assert len(set(after.values())) == len(numbers)
        assert all(check(new) == [] for new in after.values())
        assert all(old[:2] == new[:2] and old != new for old, new in after.items())


@given(st.text(string.digits, min_size=1, max_size=40))
@example("00000000")
@example("20000229")
@example("000001012000011001")
@example("0")
def test_any_digits_become_as_many_digits_of_the_same_kind(digits):
    after = number_pseudonym(KEY, digits)
    assert len(after) == len(digits) and after.isdigit() and after.isascii()
    assert (check_nrp(after) == []) == (check_nrp(digits) == []) or digits[4:] == "0000" or after[4:] == "0000"
    if digits[:4] >= "1000":
        assert (check_nip(after) == []) == (check_nip(digits) == [])


@given(st.integers(0, 10**6), st.booleans())
def test_names_keep_their_form(seed, capitals):
    dice = Dice(seed)
    name = draw_name(dice)
    name = with_degrees(dice, name if capitals else name.title(), "Pama")
    after = rewrite_name(KEY, name).text
    assert after != name
    assert after.count(" ") == name.count(" ")
    assert after.partition(",")[2] == name.partition(",")[2]
    words = [re.findall(r"[^\W_]+", text.partition(",")[0]) for text in (name, after)]
    assert len(words[0]) == len(words[1])
    for old, new in zip(*words, strict=True):
        assert (old.isupper(), old.istitle(), len(old) == 1) == (new.isupper(), new.istitle(), len(new) == 1)


def test_few_of_many_people_share_a_name():
    dice = Dice("names")
    names = {rewrite_name(KEY, draw_name(dice)).identity for _ in range(5000)}
    after = {rewrite_name(KEY, name).text for name in names}
    assert len(after) > len(names) - 25, (len(names), len(after))


PERSON = {"nama": "BUDI SANTOSO, S.H.", "nrp": "77060123"}
TEXTS = {
    "a.n. Budi Santoso": "a.n. Nugra Herimarta",
    "BUDI\nSANTOSO;": "NUGRA\nHERIMARTA;",
    "Sdr. BUDI SANT0SO dkk": "Sdr. NUGRA HERIM4RTA dkk",
    "NRP 77060123.": "NRP 77054479.",
    "NRP77060123": "NRP77054479",
    "BUDI HARTONO dan SANTOSO": "BUDI HARTONO dan SANTOSO",
    "budi pekerti": "budi pekerti",
    "tanggal 12-06-2025 pukul 08.00-16.00": "tanggal 12-06-2025 pukul 08.00-16.00",
    "Nomor: 300/71/2023": "Nomor: 300/71/2023",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("field", ["untuk", "tembusan", "kop", "keterangan", "reason"])
def test_text_is_searched_wherever_it_stands(text, field):
    final = {"personel": [PERSON], "untuk": [], "tembusan": [], "satuan": {"kop": []}}
    made = []
    if field == "keterangan":
        final["personel"] = [{**PERSON, "keterangan": text}]
    elif field == "kop":
        final["satuan"] = {"kop": [text]}
    elif field == "reason":
        made = [correction("untuk", [], [], text)]
    else:
        final[field] = [text]
    after = shown(line(final, final, made))
    found = {
        "keterangan": lambda: after["final_result"]["personel"][0]["keterangan"],
        "kop": lambda: after["final_result"]["satuan"]["kop"][0],
        "reason": lambda: after["corrections"][0]["reason"],
    }.get(field, lambda: after["final_result"][field][0])()
    assert found == TEXTS[text]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sprint-042.pdf", "sprint-042.pdf"),
        ("Budi_Santoso.pdf", "Nugra_Herimarta.pdf"),
        ("surat budi.pdf", "surat nugra.pdf"),
        ("SANTOSO-77060123.PDF", "HERIMARTA-77054479.PDF"),
    ],
)
def test_file_names_are_searched_for_single_words(name, expected):
    final = {"personel": [PERSON]}
    assert shown(line(final, final, filename=name))["filename"] == expected


def test_a_single_name_does_not_rename_a_unit():
    unit = {"nama": "POLDA METRO JAYA", "kop": ["DAERAH METRO JAYA"], "polda": "POLDA METRO JAYA"}
    final = {
        "header": {"satuan": "POLDA METRO JAYA"},
        "satuan": unit,
        "personel": [{"nama": "JAYA", "nrp": "77060123"}],
    }
    after = shown(line(final, final))["final_result"]
    assert after["header"]["satuan"] == after["satuan"]["nama"] == after["satuan"]["polda"] == "POLDA METRO JAYA"
    assert after["personel"][0]["nama"] != "JAYA"


def test_reviewers_become_labels_in_every_place():
    final = {"header": {"perihal": "Patroli"}}
    made = [
        correction("header.perihal", None, "Lalu lintas", by="budi.santoso"),
        correction("header.perihal", "Lalu lintas", "Patroli", "budi.santoso was wrong", by="reviewer-b"),
    ]
    after = shown(line({"header": {"perihal": None}}, final, made, reviewed_by="budi.santoso"))
    first, second = after["corrections"]
    assert re.fullmatch("reviewer-[0-9a-f]{8}", after["reviewed_by"])
    assert first["corrected_by"] == after["reviewed_by"] != second["corrected_by"]
    assert second["reason"] == f"{after['reviewed_by']} was wrong"
    assert shown(line(final, final, reviewed_by=None))["reviewed_by"] is None
    assert_replays(after)


def test_rows_that_ocr_ran_together_hold_both_people():
    people = [{"nama": "BUDI SANTOSO", "nrp": "77060123"}, {"nama": "ANDI WIJAYA", "nrp": "80010001"}]
    merged = [{"nama": "BUDI SANTOSO ANDI WIJAYA", "nrp": "77060123 80010001"}]
    made = [correction("personel", merged, people)]
    after = shown(line({"personel": merged}, {"personel": people}, made))
    first, second = after["final_result"]["personel"]
    (row,) = after["initial_result"]["personel"]
    assert row == {"nama": f"{first['nama']} {second['nama']}", "nrp": f"{first['nrp']} {second['nrp']}"}
    assert_replays(after)


def test_a_name_in_the_field_of_a_number_is_hidden():
    initial, final = {"personel": [{"nama": None, "nrp": "BUDI SANTOSO"}]}, {"personel": [PERSON]}
    after = shown(line(initial, final, [correction("personel", initial["personel"], final["personel"])]))
    assert after["initial_result"]["personel"][0]["nrp"] == "NUGRA HERIMARTA"


@pytest.mark.parametrize("value", [77060123, 197706122003121001])
def test_numbers_that_are_no_text_are_exchanged_too(value):
    final = {"personel": [{"nrp": value}], "no": value}
    after = shown(line({"personel": [{"nrp": None}], "no": value}, final, [correction("personel[0].nrp", None, value)]))
    assert after["final_result"]["personel"][0]["nrp"] == int(number_pseudonym(KEY, str(value)))
    assert after["final_result"]["no"] == value
    assert_replays(after)


@pytest.mark.parametrize(
    ("initial", "final", "flags"),
    [
        (None, None, []),
        (None, {"personel": [PERSON]}, ["replay_drift"]),
        ({}, {}, []),
        (None, "text", []),
        ([], [], []),
    ],
)
def test_lines_without_results_pass(initial, final, flags):
    after = shown(line(initial, final, [correction("personel[0].nrp", "1", "2")] * bool(flags), review_flags=flags))
    assert (after["initial_result"] is None) == (initial is None)
    assert "BUDI" not in str(after)


def test_unfit_paths_do_no_harm():
    made = [correction("a..b", {"nama": "BUDI SANTOSO"}, None), correction("", "x", "y")]
    after = shown(line(None, {"personel": [PERSON]}, made))
    assert after["corrections"][0]["old_value"] == {"nama": "NUGRA HERIMARTA"}


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"final_result": {}}', b"nonsense", b"null"])
def test_what_is_no_line_is_refused(text):
    with pytest.raises(DataError, match="no ground-truth line"):
        pseudonymise(text, KEY)


def test_bytes_are_those_of_a_line():
    text = line({"personel": [PERSON]}, {"personel": [PERSON]})
    after = pseudonymise(text, KEY)
    assert after == orjson.dumps(orjson.loads(after)) + b"\n"
    assert canonical(orjson.loads(after)) != canonical(orjson.loads(text))


def test_a_key_file_is_made_once_and_read_back(tmp_path):
    path = tmp_path / "corpus.key"
    make_key(path)
    warnings: list[str] = []
    key = read_key(path, warnings.append)
    assert len(key) == 32 and warnings == [] and path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="exists already"):
        make_key(path)
    assert read_key(path, warnings.append) == key
    with pytest.raises(UsageError, match="cannot be written"):
        make_key(tmp_path / "none" / "corpus.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_told(tmp_path, mode, capsys):
    path = tmp_path / "corpus.key"
    make_key(path)
    path.chmod(mode)
    read_key(path)
    assert "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "can be guessed"),
        (b"ab" * 31, "can be guessed"),
        (b"00" * 64, "can be guessed"),
        (b"secret", "is no key"),
        (b"\xff" * 64, "is no key"),
    ],
)
def test_poor_keys_are_refused_with_the_way_out(tmp_path, text, problem):
    path = tmp_path / "corpus.key"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=problem) as caught:
        read_key(path)
    assert "make one with" in str(caught.value) and "make_key" in str(caught.value)


def test_a_missing_key_is_told(tmp_path):
    for path in (tmp_path / "none.key", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_key(path)
