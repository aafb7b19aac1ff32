"""What a worn scan does to a letter, one damage at a time: the letter is read as if nothing had happened."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ocr_sprint.core.canonical import Json
from ocr_sprint.documents.extract import extract
from ocr_sprint.documents.fiction import LAYOUTS, fictitious
from ocr_sprint.documents.letter import fields
from ocr_sprint.documents.ocr import ReadPage, read_page
from ocr_sprint.documents.pages import Span, read_pages, upright
from ocr_sprint.documents.typeset import typeset

SEEDS = range(7200, 7214)


@cache
def letter(seed: int) -> tuple[ReadPage, ...]:
    "A letter's pages as a perfect engine would recognise them."
    layout = LAYOUTS[seed % len(LAYOUTS)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "letter.pdf"
        path.write_bytes(typeset(fictitious(seed, layout), layout, seed).pdf)
        return tuple(replace(read_page(page), source="ocr") for page in read_pages(path))


def values(pages: Sequence[ReadPage]) -> dict[str, Json]:
    return fields(extract(pages).result)


def respelt(pages: Sequence[ReadPage], change: Callable[[str], str]) -> list[ReadPage]:
    "The pages with every span's text changed."
    return [replace(page, spans=tuple(replace(s, text=change(s.text)) for s in page.spans)) for page in pages]


def with_spans(pages: Sequence[ReadPage], number: int, *more: Span) -> list[ReadPage]:
    "The pages with more spans on one of them."
    return [replace(page, spans=(*page.spans, *more)) if page.number == number else page for page in pages]


def differences(damaged: Callable[[int], Sequence[ReadPage]]) -> dict[int, list[tuple[str, Json, Json]]]:
    "What the damage changed in the result, by seed."
    found = {}
    for seed in SEEDS:
        before, after = values(letter(seed)), values(damaged(seed))
        paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
        if paths:
            found[seed] = [(path, before.get(path), after.get(path)) for path in paths[:4]]
    return found


LABELS = (
    "Pertimbangan:Pertimbngan", "Dasar:Dasr", "Untuk:Uutuk", "Selesai:Selsai", "Dikeluarkan:Dikeuarkan",
    "Tembusan:Temibusan", "Kepada:Kepda",
)  # fmt: skip


@pytest.mark.parametrize("label", LABELS)
def test_a_label_with_a_letter_lost_added_or_misread_is_known(label: str) -> None:
    right, wrong = label.split(":")

    def worn(text: str) -> str:
        return re.sub(rf"^{right}", wrong, re.sub(rf"^{right.upper()}", wrong.upper(), text))

    assert not differences(lambda seed: respelt(letter(seed), worn))


def spans_at(seed: int, field_path: str) -> tuple[int, list[Span]]:
    "The page that shows a field, and the spans inside the field's box."
    place = extract(letter(seed)).evidence[field_path][0]  # type: ignore[index, call-overload]
    left, top, right, bottom = place["box"]
    page = next(page for page in letter(seed) if page.number == place["page"])
    inside = [
        s
        for s in page.spans
        if left - 2 <= s.box[0] and s.box[2] <= right + 2 and top - 2 <= s.box[1] and s.box[3] <= bottom + 2
    ]
    return page.number, inside


def test_the_first_person_is_found_without_the_number_in_front() -> None:
    def worn(seed: int) -> Sequence[ReadPage]:
        if LAYOUTS[seed % len(LAYOUTS)] not in ("block", "keyvalue", "inline") or "personel[1].no" not in values(
            letter(seed)
        ):
            return letter(seed)
        number, first = spans_at(seed, "personel[0].no")
        return [
            replace(page, spans=tuple(s for s in page.spans if page.number != number or s not in first))
            for page in letter(seed)
        ]

    assert not differences(worn)


STAMPED = ("RESOR", "POLDA", "PAPUA BARAT")


def test_a_stamp_and_a_signature_are_no_part_of_the_office() -> None:
    def worn(seed: int) -> Sequence[ReadPage]:
        if values(letter(seed)).get("penandatangan.jabatan") is None:
            return letter(seed)
        number, office = spans_at(seed, "penandatangan.jabatan")
        left, _, right, bottom = office[-1].box
        middle, high = (left + right) / 2, bottom - office[-1].box[1]
        stamp = upright(
            STAMPED[seed % 3], (middle - 7 * high, bottom + 0.2 * high, middle - 3 * high, bottom + 1.2 * high), 0.95
        )
        pen = upright("Mn", (middle - 3 * high, bottom + 0.3 * high, middle + 3 * high, bottom + 3.3 * high), 0.7)
        return with_spans(letter(seed), number, stamp, pen)

    assert not differences(worn)


def test_an_office_is_no_name_where_the_name_was_lost() -> None:
    for seed in SEEDS:
        number, name = spans_at(seed, "penandatangan.nama")
        pages = [
            replace(p, spans=tuple(s for s in p.spans if p.number != number or s not in name)) for p in letter(seed)
        ]
        after = values(pages)
        assert after.get("penandatangan.nama") is None
        assert after["penandatangan.jabatan"] == values(letter(seed))["penandatangan.jabatan"], seed


def test_dust_on_a_word_that_other_rows_show_whole_is_no_part_of_a_post() -> None:
    def worn(seed: int) -> Sequence[ReadPage]:
        found = values(letter(seed))
        posts = [path for path in found if re.fullmatch(r"personel\[\d+\]\.jabatan", path)]
        words = Counter(word for path in posts for word in str(found[path]).split())
        for path in posts:
            number, spans = spans_at(seed, path)
            for span in spans:
                first, *rest = span.text.split()
                if words[first] > 3 and len(first) > 3:
                    dusty = replace(span, text=" ".join([first + "'", *rest]))
                    return [
                        replace(p, spans=tuple(dusty if p.number == number and s is span else s for s in p.spans))
                        for p in letter(seed)
                    ]
        return letter(seed)

    assert not differences(worn)


def test_items_are_told_by_their_numbers_whatever_stands_behind_them() -> None:
    def worn(text: str) -> str:
        return re.sub(r"^(\d)\.$", r"\1:", re.sub(r"^(\d)\. (?=[A-Za-z])", r".\1.. ", text))

    assert not differences(lambda seed: respelt(letter(seed), worn))
