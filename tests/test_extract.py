"""Letters with a text layer are read to the letter, and no page whatever breaks the reading."""

from __future__ import annotations

import datetime
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_sprint.core.canonical import Json, canonical
from ocr_sprint.documents.extract import Extraction, extract
from ocr_sprint.documents.fiction import LAYOUTS, fictitious
from ocr_sprint.documents.letter import Result, fields, parse_result, result_data
from ocr_sprint.documents.names import tidy_name
from ocr_sprint.documents.ocr import ReadPage, read_page
from ocr_sprint.documents.pages import Span, read_pages, upright
from ocr_sprint.documents.ranks import RANKS
from ocr_sprint.documents.typeset import typeset

SEEDS = range(7000, 7150)  # of letters that nobody looked at while the rules were written


@cache
def read_letter(seed: int) -> tuple[Result, tuple[ReadPage, ...]]:
    "A letter's truth and its pages, as its text layer gives them."
    layout = LAYOUTS[seed % len(LAYOUTS)]
    truth = fictitious(seed, layout)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "letter.pdf"
        path.write_bytes(typeset(truth, layout, seed).pdf)
        return truth, tuple(read_page(page) for page in read_pages(path))


@cache
def reading(seed: int) -> Extraction:
    return extract(read_letter(seed)[1])


# How much is right


Misread = tuple[int, str, Json, Json]  # seed, path, truth, what was read


def misread(seed: int) -> list[Misread]:
    truth, read = fields(read_letter(seed)[0]), fields(reading(seed).result)
    paths = dict.fromkeys((*truth, *read))
    return [(seed, path, truth.get(path), read.get(path)) for path in paths if truth.get(path) != read.get(path)]


def worst(wrong: Sequence[Misread]) -> str:
    "The letters with most errors, and the first errors of each."
    counts = Counter(seed for seed, *_ in wrong)
    shown = []
    for seed, count in counts.most_common(8):
        shown.append(f"seed {seed} ({LAYOUTS[seed % len(LAYOUTS)]}): {count} fields")
        shown += [f"    {path}: {truth!r} was read as {read!r}" for at, path, truth, read in wrong if at == seed][:4]
    return "\n".join(["", *shown])


def test_letters_are_read_to_the_letter() -> None:
    wrong = [error for seed in SEEDS for error in misread(seed)]
    perfect = len(SEEDS) - len({seed for seed, *_ in wrong})
    assert perfect / len(SEEDS) >= 0.95, f"{perfect} of {len(SEEDS)} letters" + worst(wrong)


FIELDS = ("header.nomor_sprint", "header.tanggal", "personel[].nrp", "personel[].pangkat", "personel[].nama")


@pytest.mark.parametrize("name", FIELDS)
def test_the_fields_that_count_are_right(name: str) -> None:
    there = [path for seed in SEEDS for path in fields(read_letter(seed)[0]) if re.sub(r"\d+", "", path) == name]
    wrong = [error for seed in SEEDS for error in misread(seed) if re.sub(r"\d+", "", error[1]) == name]
    assert 1 - len(wrong) / len(there) >= 0.995, f"{len(wrong)} of {len(there)} wrong" + worst(wrong)


def test_nobody_is_lost_and_nobody_is_invented() -> None:
    truth = {seed: Counter(person.nrp for person in read_letter(seed)[0].personel) for seed in SEEDS}
    found = {seed: Counter(person.nrp for person in reading(seed).result.personel) for seed in SEEDS}
    lost = {seed: (truth[seed] - found[seed]).total() for seed in SEEDS}
    invented = {seed: (found[seed] - truth[seed]).total() for seed in SEEDS}
    people = sum(counts.total() for counts in truth.values())
    for name, counts in (("lost", lost), ("invented", invented)):
        message = f"{name}, by seed: { {seed: count for seed, count in counts.items() if count} }"
        assert sum(counts.values()) <= 0.005 * people, message


def test_a_letter_that_is_read_right_has_no_flag_but_for_what_it_lacks() -> None:
    flags = {seed: reading(seed).review_flags for seed in SEEDS if not misread(seed)}
    needless = {
        seed: [flag for flag in found if not flag.startswith(("wajib_kosong@", "nomor_kosong@"))]
        for seed, found in flags.items()
    }
    assert sum(map(bool, needless.values())) <= 0.02 * len(SEEDS), {s: found for s, found in needless.items() if found}


def test_a_letter_that_lost_people_is_flagged() -> None:
    for seed in SEEDS:
        truth, read = read_letter(seed)[0], reading(seed)
        if len(truth.personel) != len(read.result.personel):
            assert read.review_flags, seed


# What stands beside a result


def check_whole(pages: Sequence[ReadPage], read: Extraction) -> None:
    "What holds for every reading of every page."
    assert parse_result(result_data(read.result)) == read.result
    leaves, sizes = fields(read.result), {page.number: (page.width, page.height) for page in pages}
    read.text.encode()
    assert 0 <= read.confidence <= 1
    assert all(0 <= value <= 1 for value in read.field_confidence.values())
    for flag in read.review_flags:
        code, _, path = flag.partition("@")
        assert re.fullmatch("[a-z_]+", code), flag
        assert not path or path in leaves, flag
    assert set(read.field_confidence) <= set(leaves)
    for path, places in read.evidence.items():
        assert leaves[path] is not None, path
        assert isinstance(places, list)
        for place in places:
            assert isinstance(place, dict)
            left, top, right, bottom = place["box"]
            width, height = sizes[place["page"]]
            assert 0 <= left <= right <= width, (path, place)
            assert 0 <= top <= bottom <= height, (path, place)
    canonical({"result": result_data(read.result), "evidence": dict(read.evidence)})


@pytest.mark.parametrize("seed", SEEDS[::3])
def test_evidence_and_flags_fit_the_letter(seed: int) -> None:
    pages, read = read_letter(seed)[1], reading(seed)
    check_whole(pages, read)
    derived = ("lampiran.ada",)
    present = [path for path, value in fields(read.result).items() if value is not None and path not in derived]
    assert [path for path in present if path not in read.evidence] == []
    assert [path for path in present if path not in read.field_confidence] == []


def as_json(read: Extraction) -> bytes:
    return canonical({**vars(read), "result": result_data(read.result), "review_flags": list(read.review_flags)})


@pytest.mark.parametrize("seed", SEEDS[::5])
def test_the_order_of_spans_does_not_matter(seed: int) -> None:
    pages, dice = read_letter(seed)[1], random.Random(seed)
    shuffled = [replace(page, spans=tuple(dice.sample(page.spans, len(page.spans)))) for page in pages]
    assert as_json(extract(shuffled)) == as_json(reading(seed))


@pytest.mark.parametrize("seed", SEEDS[1::10])
def test_pages_may_be_larger_or_smaller(seed: int) -> None:
    for factor in (0.5, 2.0, 4.0):
        pages = [scaled(page, factor) for page in read_letter(seed)[1]]
        assert extract(pages).result == reading(seed).result, factor


def scaled(page: ReadPage, factor: float) -> ReadPage:
    spans = tuple(upright(s.text, tuple(side * factor for side in s.box), s.score) for s in page.spans)  # type: ignore[arg-type]
    return replace(page, width=round(page.width * factor), height=round(page.height * factor), spans=spans)


# Any page at all


WORDS = (
    "SURAT PERINTAH", "SURAT TUGAS", "Nomor : Sprin/12/II/HUK.6.6./2025", "Nomor : Sprin/ /II/2025",
    "Sprin/1/XIII/9999", "TENTANG", "PERIHAL", "Pertimbangan :",
    "bahwa dalam rangka pengamanan, maka dipandang perlu", "Dasar :", "1.", "2.", "a.", "DIPERINTAHKAN :",
    "Kepada :", "Nama : BUDI SANTOSO", "Pangkat/NRP : AIPDA/77060000", "NO", "NAMA", "PANGKAT", "NRP",
    "PANGKAT/NRP", "JABATAN", "KET", "1", "2", "99999999", "77060000", "8806 0001", "198001012005011001", "AIPDA",
    "BRIPKA", "PENATA I", "I WAYAN SUDANA, S.H.", "-", "–", ",", ".", "/", "Untuk :", "s.d.",
    "5 s.d. 31 Februari 2025", "30 Februari 0000", "UNSUR PIMPINAN", "Selesai.", "Dikeluarkan di : Semarang",
    "pada tanggal :", "29 Februari 2024", "a.n. KEPALA KEPOLISIAN RESOR", "KABAG OPS",
    "AJUN KOMISARIS POLISI NRP 77060000", "Tembusan :", "LAMPIRAN SURAT PERINTAH", "DAFTAR NAMA PERSONEL",
    "KEPOLISIAN NEGARA REPUBLIK INDONESIA", "DAERAH JAWA TENGAH", "RESOR SEMARANG",
)  # fmt: skip

TEXTS = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from([rank.short for rank in RANKS]),
    st.text(max_size=30),
    st.text(alphabet="0123456789OIl|SB/.-: ", max_size=24),
    st.from_regex(r"(NRP|NIP)?\W{0,2}\d{6,18}", fullmatch=True),
    st.dates().map(datetime.date.isoformat),
)
SIDE = 2000


@st.composite
def straight_spans(draw: st.DrawFn) -> Span:
    "Text on a grid, so that lines and columns come about."
    left, row = draw(st.integers(0, 19)) * 90, draw(st.integers(0, 60)) * 32
    text = draw(TEXTS)
    width = max(min(11 * len(text), SIDE - left), 1)
    return upright(text, (left, row, left + width, row + draw(st.integers(1, 40))), draw(st.floats(0, 1)))


COORDINATES = st.one_of(st.integers(0, SIDE).map(float), st.floats(0, SIDE))
POINTS = st.tuples(COORDINATES, COORDINATES)
CROOKED = st.builds(Span, TEXTS, st.tuples(POINTS, POINTS, POINTS, POINTS), st.floats(0, 1))


def pages_of(spans: st.SearchStrategy[Span], size: int = SIDE) -> st.SearchStrategy[list[ReadPage]]:
    page = st.tuples(st.sampled_from(["text", "ocr"]), st.lists(spans, max_size=40).map(tuple))
    return st.lists(page, max_size=3).map(
        lambda found: [ReadPage(n, size, size, 0, source, spans) for n, (source, spans) in enumerate(found, 1)]
    )


@settings(max_examples=150, deadline=None)
@given(pages_of(straight_spans()))
def test_any_page_has_a_reading(pages: list[ReadPage]) -> None:
    read = extract(pages)
    check_whole(pages, read)
    assert as_json(extract(pages)) == as_json(read)


COLUMNS = (("NO", 100), ("NAMA", 200), ("PANGKAT", 700), ("NRP", 950), ("JABATAN", 1200), ("KET", 1700))
CELLS = st.tuples(st.sampled_from([left for _, left in COLUMNS]), st.integers(2, 30), st.integers(-8, 8), TEXTS)


@st.composite
def table_pages(draw: st.DrawFn) -> list[ReadPage]:
    "A table's heading, then cells at random; more of them on a second page."
    pages = []
    for number in (1, 2):
        cells = [] if number == 2 else [(left, 1, 0, name) for name, left in COLUMNS]
        cells += draw(st.lists(CELLS, max_size=40))
        spans = [
            upright(text, (left, 40 * row + fall, min(left + 10 * len(text) + 1, SIDE), 40 * row + fall + 24))
            for left, row, fall, text in cells
        ]
        pages.append(ReadPage(number, SIDE, SIDE, 0, draw(st.sampled_from(["text", "ocr"])), tuple(spans)))
    return pages


@settings(max_examples=150, deadline=None)
@given(table_pages())
def test_any_table_has_a_reading(pages: list[ReadPage]) -> None:
    check_whole(pages, extract(pages))


@settings(max_examples=80, deadline=None)
@given(pages_of(CROOKED))
def test_crooked_spans_have_a_reading(pages: list[ReadPage]) -> None:
    check_whole(pages, extract(pages))


FAR = st.floats(-1e9, 1e9)
FAR_POINTS = st.tuples(FAR, FAR)


@settings(max_examples=60, deadline=None)
@given(pages_of(st.builds(Span, TEXTS, st.tuples(FAR_POINTS, FAR_POINTS, FAR_POINTS, FAR_POINTS), st.floats(0, 1))))
def test_huge_coordinates_have_a_reading(pages: list[ReadPage]) -> None:
    extract(pages)


@settings(max_examples=100, deadline=None)
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_a_letter_with_anything_lost_or_misread_has_a_reading(seed: int, data: st.DataObject) -> None:
    dice = random.Random(data.draw(st.integers(0, 10**6)))
    pages = []
    for page in read_letter(seed)[1]:
        spans = []
        for span in page.spans:
            fate = dice.random()
            if fate < 0.85:
                spans.append(span)
            elif fate < 0.95:
                spans.append(replace(span, text=data.draw(TEXTS), score=dice.random()))
        pages.append(replace(page, spans=tuple(spans), source=dice.choice(("text", "ocr"))))
    check_whole(pages, extract(pages))


def test_no_pages_and_empty_pages_are_empty() -> None:
    blank = ReadPage(1, SIDE, SIDE, 0, "ocr", ())
    for pages in ([], [blank], [blank, replace(blank, number=2)]):
        read = extract(pages)
        assert (read.result, read.review_flags, read.confidence) == (Result(), ("halaman_kosong",), 0.0)


def test_other_papers_are_no_order() -> None:
    text = "Yth. Bapak dan Ibu, kami mengundang Anda ke rapat warga pada hari Minggu."
    page = ReadPage(1, SIDE, SIDE, 0, "text", (upright(text, (100, 100, 1500, 130)),))
    assert extract([page]).review_flags == ("bukan_surat_perintah",)


NAME_PARTS = st.sampled_from(
    [
        "S.H.",
        "M.Si.",
        "S.PS.",
        "SH",
        "Ners",
        "A.Md.",
        "BUDI",
        "INYOMAN",
        "I",
        "MOH.",
        "M.",
        "1",
        "l",
        ",",
        ".",
        ":",
        " ",
        ", ",
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(NAME_PARTS, max_size=9).map("".join)), st.booleans())
def test_tidying_a_name_twice_changes_nothing(text: str, recognised: bool) -> None:
    tidy = tidy_name(text, recognised)
    assert tidy_name(tidy, recognised) == tidy


DEGREES = ("S.H.", "S.I.K.", "S.Tr.K.", "M.Si.", "A.Md.Kep.", "S.Psi.")


@pytest.mark.parametrize("name", ["ADI", "BUDI M. SANTOSO", "I WAYAN SUDANA"])
def test_degrees_are_told_from_a_name_whatever_became_of_their_marks(name: str) -> None:
    for first, second in product(DEGREES, repeat=2):
        whole = f"{name}, {first}, {second}"
        assert tidy_name(whole, recognised=True) == whole
        for comma, stop in product((", ", " ", ". ", ".", ",", ": "), (".", ":", ". ", ",")):
            behind = comma.join(degree.replace(".", stop).strip() for degree in (first, second))
            assert tidy_name(f"{name}{comma}{behind}", recognised=True) == whole, (comma, stop)


# The row that numbers a table's columns


HEADS = ("NO", 100), ("NAMA", 200), ("PANGKAT", 700), ("NRP", 950), ("JABATAN", 1200)
LOOKALIKES = ("l", "Z", "B", "A", "S")  # of 1 to 5
PERSONS = (
    ("1", "BUDI SANTOSO", "AKP", "77060001", "KASAT SAMAPTA"),
    ("2", "ADI", "BRIPKA", "88050002", "BANIT SAT SAMAPTA"),
    ("3", "SITI AMINAH", "BRIPDA", "99040003", "BANUM"),
)


def numbered_table(numbering: Sequence[str]) -> ReadPage:
    "A letter with a table whose heading stands above the row of column numbers; an empty text is no span."
    spans = [
        upright("SURAT PERINTAH", (800, 100, 1200, 130)),
        upright("Nomor : Sprin/1/I/2025", (750, 150, 1250, 180)),
        upright("Kepada", (100, 250, 200, 280)),
    ]
    rows = [[name for name, _ in HEADS], numbering, *PERSONS]
    for row, cells in enumerate(rows):
        for (_, left), text in zip(HEADS, cells, strict=True):
            box = (left + 20, 300 + 50 * row, left + 20 + 14 * len(text), 330 + 50 * row)
            spans += [upright(text, box, 0.9)] if text else []
    return ReadPage(1, SIDE, SIDE, 0, "ocr", tuple(spans))


def people_read(numbering: Sequence[str]) -> list[tuple[str | None, ...]]:
    people = extract([numbered_table(numbering)]).result.personel
    return [(str(p.no), p.nama, p.pangkat, p.nrp, p.jabatan) for p in people]


def test_column_numbers_are_nobody() -> None:
    for form in ("{}", "{}.", "({})", "• {}"):
        assert people_read([form.format(number) for number in range(1, 6)]) == list(PERSONS), form


def test_column_numbers_that_are_misread_or_lost_are_nobody() -> None:
    cells = [(str(n), letter, "" if n % 2 else "+.") for n, letter in enumerate(LOOKALIKES, 1)]
    wrong = [row for row in product(*cells) if people_read(row) != list(PERSONS)]
    assert not wrong, (len(wrong), wrong[:5])
