"""Letters are the same for ever, true, legible, and stand where their record says."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from PIL import Image

from ocr_sprint.core.canonical import decode
from ocr_sprint.core.errors import UsageError
from ocr_sprint.documents.dice import Dice
from ocr_sprint.documents.fiction import LAYOUTS, Layout, fictitious
from ocr_sprint.documents.identifiers import Identifier, check_identifier
from ocr_sprint.documents.letter import Result, fields, parse_result, result_data, result_json
from ocr_sprint.documents.letterhead import draw_style
from ocr_sprint.documents.numbers import ROMAN, read_date, read_order_number
from ocr_sprint.documents.people import RANK_OF
from ocr_sprint.documents.ranks import read_rank
from ocr_sprint.documents.scan import Hand, map_box, scan
from ocr_sprint.documents.sheet import FAMILIES
from ocr_sprint.documents.synthetic import LEVELS, Letter, Level, make_letter, pictures, write_letters
from ocr_sprint.documents.typeset import Drawn, Typeset, compose, typeset
from ocr_sprint.documents.units import read_letterhead
from ocr_sprint.tools.synth import main

EDGE = 20.0  # points of paper that no printer reaches


# The same for ever


def test_content_never_changes() -> None:
    digest = sha256(b"".join(result_json(fictitious(seed)) for seed in range(50)))
    assert digest.hexdigest() == "eb8348e66b2a20ac76fd7a71bf444af05a69e4dd44a0b967ac09b01e5928f17f"


SCRIPT = """
from hashlib import sha256
from ocr_sprint.documents.synthetic import LEVELS, make_letter
letters = [make_letter(4, layout="attachment_ruled", level=level) for level in LEVELS]
print(sha256(b"".join(letter.data for letter in letters)).hexdigest(), hash(letters[0].boxes[0].text) % 97)
"""


def test_bytes_depend_on_nothing_but_the_seed() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for hash_seed in ("1", "2")
    ]
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][1] != outputs[1][1], "the hash seeds must have taken effect"


def test_two_seeds_share_nobody() -> None:
    numbers = [{person.nrp for person in fictitious(seed).personel} for seed in (1_000_000, 2_000_000)]
    assert not numbers[0] & numbers[1]


# True


@pytest.mark.parametrize("seed", range(0, 400, 8))
def test_truth_passes_the_rules(seed: int) -> None:
    for result in map(fictitious, range(seed, seed + 8)):
        check_header(result)
        check_people(result)
        assert parse_result(result_data(result)) == result
        assert all(str(value) == " ".join(str(value).split()) for value in fields(result).values())


def check_header(result: Result) -> None:
    header = result.header
    number = read_order_number(header.nomor_sprint or "")
    assert number is not None
    assert str(number) == header.nomor_sprint
    assert (number.serial, number.month, number.archive, number.year) == (
        header.nomor_urut,
        header.bulan_romawi,
        header.kode_klasifikasi,
        header.tahun,
    )
    if header.tanggal:
        assert (ROMAN[header.tanggal.month - 1], header.tanggal.year) == (number.month, number.year)
    assert read_letterhead(result.satuan.kop) == result.satuan
    assert header.satuan == result.satuan.nama is not None
    assert (header.perihal or "").casefold() in (result.pertimbangan or "").casefold()
    assert not result.lampiran.ada or result.lampiran.tanggal == header.tanggal
    assert not result.lampiran.ada or (result.lampiran.nomor or "").casefold() == header.nomor_sprint.casefold()


def check_people(result: Result) -> None:
    people = result.personel
    assert 1 <= len(people) <= 42
    numbers = [person.nrp for person in people] + [result.penandatangan.nrp] * (result.penandatangan.nrp is not None)
    assert len(set(numbers)) == len(numbers)
    for person in people:
        reading = read_rank(person.pangkat or "")
        assert reading is not None
        assert (reading.exact, reading.rank.short) == (True, person.pangkat)
        assert (person.jenis_id == "NIP") == (reading.rank.corps == "asn")
        assert person.nrp is not None
        assert person.jenis_id is not None
        assert check_identifier(Identifier(person.nrp, person.jenis_id, repaired=False), result.header.tanggal) == []
    assert [person.no for person in people] in ([None] * len(people), list(range(1, len(people) + 1)))


def test_every_variety_occurs() -> None:
    letters = [fictitious(seed) for seed in range(300)]
    assert {letter.satuan.tingkat for letter in letters} == {"mabes", "polda", "polres", "polsek", "satker"}
    assert {letter.header.perihal_sumber for letter in letters} == {"tentang", "perihal", "pertimbangan"}
    assert any(letter.header.nomor_urut is None for letter in letters)
    assert any(letter.header.tanggal is None for letter in letters)
    assert any(letter.penandatangan.nrp is None for letter in letters)
    people = [person for letter in letters for person in letter.personel]
    sizes = {len(letter.personel) for letter in letters}
    assert min(sizes) == 1
    assert max(sizes) > 38
    for field in ("kelompok", "keterangan", "jabatan_sprin"):
        assert {getattr(person, field) is None for person in people} == {True, False}
    assert {person.jenis_id for person in people} == {"NRP", "NIP"}
    names = [person.nama or "" for person in people]
    assert any(" " not in name for name in names)
    assert any(len(name) > 40 for name in names)
    assert not any("'" in name for name in names)


# Legible


def check_drawn(drawn: Sequence[Drawn], pages: Sequence[tuple[float, float]]) -> None:
    "Every string lies on the printable part of its page, and no two boxes share more than a hair."
    for number, (width, height) in enumerate(pages):
        there = [one for one in drawn if one.page == number]
        left, top, right, bottom = np.array([one.box for one in there]).reshape(-1, 4).T
        assert min(left.min(), top.min(), width - right.max(), height - bottom.max()) >= EDGE
        wide = np.minimum.outer(right, right) - np.maximum.outer(left, left)
        high = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top)
        both = np.argwhere(np.triu((wide > 0.05) & (high > 0.05), k=1))
        assert [(there[one].text, there[other].text) for one, other in both] == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(20))
def test_nothing_leaves_the_page_or_overlaps(seed: int, layout: Layout) -> None:
    letter = typeset(fictitious(seed, layout), layout, seed)
    check_drawn(letter.drawn, letter.pages)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_fits_every_layout(family: str, layout: Layout) -> None:
    for seed in (1, 2):
        style = replace(draw_style(Dice(seed, family)), family=family, size=12 * FAMILIES[family].scale)
        sheet = compose(fictitious(seed, layout), layout, style)
        drawn = tuple(Drawn(run.page, run.box, run.text, run.paths) for run in sheet.runs)
        check_drawn(drawn, ((sheet.width, sheet.height),) * (sheet.page + 1))


def shown(letter: Typeset | Letter) -> dict[str, str]:
    "What the strings of each field say together."
    texts = defaultdict(list)
    for one in letter.drawn if isinstance(letter, Typeset) else letter.boxes:
        for path in one.paths:
            texts[path].append(one.text)
    return {path: " ".join(" ".join(parts).split()) for path, parts in texts.items()}


def check_shown(path: str, truth: str, text: str) -> None:
    name = path.rsplit(".", 1)[-1]
    if name in ("nomor_sprint", "nomor"):
        assert str(read_order_number(text)) == truth
    elif name == "tanggal":
        assert str(read_date(text)) == truth
    elif name == "pangkat":
        assert RANK_OF[truth] == getattr(read_rank(text), "rank", None)
    elif name == "nrp":
        assert "".join(text.split()) == truth
    elif path == "header.perihal":
        assert text.rstrip(",") == truth
    else:
        assert text.removesuffix(".") == truth.removesuffix(".")


DERIVED = ("perihal_sumber", "jenis_id", "satuan", "nomor_urut", "bulan_romawi", "kode_klasifikasi", "tahun")
DERIVED += ("berlaku_mulai", "berlaku_selesai", "ada", "tingkat", "polda", "polres", "satfung", "kelompok")


@pytest.mark.parametrize("seed", range(60))
def test_every_field_is_drawn_as_its_truth_says(seed: int) -> None:
    layout = LAYOUTS[seed % len(LAYOUTS)]
    truth = fictitious(seed, layout)
    texts = shown(typeset(truth, layout, seed))
    for path, value in fields(truth).items():
        if value is not None and path.rsplit(".", 1)[-1] not in DERIVED and path != "satuan.nama":
            check_shown(path, str(value), texts[path])
    groups = [texts[f"personel[{index}].kelompok"] for index in group_starts(truth)]
    assert groups == [truth.personel[index].kelompok for index in group_starts(truth)]


def group_starts(truth: Result) -> list[int]:
    groups = [person.kelompok for person in truth.personel]
    return [index for index, group in enumerate(groups) if group and (index == 0 or groups[index - 1] != group)]


@pytest.mark.parametrize("seed", range(28))
def test_text_layer_says_what_was_drawn(seed: int) -> None:
    layout = LAYOUTS[seed % len(LAYOUTS)]
    letter = make_letter(seed, layout=layout, level="digital")
    with pypdfium2.PdfDocument(letter.data) as document:
        texts = [page.get_textpage() for page in document]
        for one in letter.boxes:
            left, top, right, bottom = one.box
            height = letter.pages[one.page][1]
            found = texts[one.page].get_text_bounded(left - 1, height - bottom, right + 1, height - top)
            assert "".join(found.split()) == "".join(one.text.split())


# In place


def grey(letter: Letter) -> list[np.ndarray]:
    scale = 200 / 72 if letter.level == "digital" else 1.0
    return [np.asarray(picture.convert("L"), np.float32) for picture in pictures(letter, scale)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(3))
def test_boxes_hold_the_ink(seed: int, level: Level) -> None:
    letter = make_letter(100 + seed, level=level)
    pages = grey(letter)
    scale = 200 / 72 if level == "digital" else 1.0
    for one in letter.boxes:
        page = pages[one.page]
        left, top, right, bottom = (round(value * scale) for value in one.box)
        assert 0 <= left < right <= page.shape[1]
        assert 0 <= top < bottom <= page.shape[0]
        part = page[top:bottom, left:right]
        assert part.min() < 0.75 * np.median(page), one


@pytest.mark.parametrize("seed", range(6))
def test_boxes_fit_the_words_closely(seed: int) -> None:
    letter = make_letter(200 + seed, level="clean")
    pages = grey(letter)
    inner = [one for one in letter.boxes if "header.tempat" in one.paths or "header.tanggal" in one.paths]
    for one in inner:
        page = pages[one.page]
        left, top, right, bottom = map(round, one.box)
        margin = (bottom - top) // 4
        columns = (page[top:bottom, left - margin : right + margin] < 0.6 * np.median(page)).any(0).nonzero()[0]
        assert abs(columns[0] - margin) <= margin
        assert abs(columns[-1] - (right - left + margin)) <= margin


# Files


def test_files_and_manifest(tmp_path: Path) -> None:
    files = write_letters(tmp_path / "set", 5, 3, levels=("digital", "clean"))
    assert [file.stem for file in files] == ["001", "002", "003", "004", "005"]
    entries = [json.loads(line) for line in (tmp_path / "set" / "manifest.jsonl").read_text().splitlines()]
    for index, (file, entry) in enumerate(zip(files, entries, strict=True)):
        letter = make_letter(3_000_000 + index, layout=entry["layout"], level=entry["level"])
        assert file.read_bytes() == letter.data
        assert file.with_suffix(".json").read_bytes() == result_json(letter.truth)
        assert parse_result(decode(file.with_suffix(".json").read_bytes())) == letter.truth
        assert entry["file"] == file.name
        assert entry["seed"] == letter.seed
        assert [tuple(size) for size in entry["pages"]] == list(letter.pages)
        assert [box["text"] for box in entry["boxes"]] == [one.text for one in letter.boxes]


def test_other_letters_in_the_folder_stay(tmp_path: Path) -> None:
    write_letters(tmp_path, 2, 3, levels=("digital",))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_letters(tmp_path, 2, 3, levels=("digital",))
    with pytest.raises(UsageError, match=r"001\.pdf: is there already and is another letter"):
        write_letters(tmp_path, 2, 4, levels=("digital",))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "001.pdf").unlink()
    with pytest.raises(UsageError, match=r"001\.json: is there already"):
        write_letters(tmp_path, 2, 4, levels=("digital",))
    assert not (tmp_path / "001.pdf").exists()


def test_scans_hold_no_text() -> None:
    letter = make_letter(9, layout="attachment_unruled", level="medium")
    assert letter.suffix == ".pdf"
    with pypdfium2.PdfDocument(letter.data) as document:
        assert len(document) == len(letter.pages) > 1
        assert not any(page.get_textpage().get_text_range() for page in document)


def test_png_has_the_size_that_the_letter_says() -> None:
    letters = (make_letter(seed, layout="inline", level="hard") for seed in range(50))
    letter = next(letter for letter in letters if letter.suffix == ".png")
    assert Image.open(io.BytesIO(letter.data)).size == letter.pages[0]


def test_pen_writes_where_print_is_blank() -> None:
    printed, written = (make_letter(8, layout="block", level="clean", pen=pen) for pen in (False, True))
    assert printed.truth == written.truth
    number = printed.truth.header.nomor_urut
    assert str(number) in shown(printed)["header.nomor_sprint"]
    assert str(number) not in shown(written)["header.nomor_sprint"]


def darkest(hand: Hand) -> list[float]:
    "The darkest grey in each blank of a letter that was left to the pen."
    truth = fictitious(8, "attachment_ruled")
    letter = typeset(truth, "attachment_ruled", 8, pen=True)
    pages = scan(letter.pdf, "clean", 8, letter.marks, hand)
    shades = []
    for mark in (mark for mark in letter.marks if mark.kind != "signature"):
        page = np.asarray(Image.open(io.BytesIO(pages[mark.page].jpeg)).convert("L"), np.float32)
        left, top, right, bottom = map(round, map_box(pages[mark.page].matrix, mark.box))
        shades.append(float(page[top:bottom, left + 5 : right - 5].min()))
    return shades


def test_pen_fills_every_blank() -> None:
    blank, filled = darkest(Hand()), darkest(Hand(number="471", day="12"))
    assert len(blank) == len(filled) >= 4
    assert min(blank) > 170
    assert max(filled) < 130


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--n",
        "2",
        "--seed",
        "1",
        "--out",
        str(tmp_path / "letters"),
        "--level",
        "clean",
        "--layout",
        "inline",
    ]
    assert main([*arguments, "--pen"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "wrote 2 letters" in captured.err
    assert {path.suffix for path in (tmp_path / "letters").iterdir()} <= {".pdf", ".png", ".json", ".jsonl"}


def test_command_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "letters"
    assert main(["--n", "1", "--seed", "1", "--out", str(out), "--pen"]) == 2
    assert "choose scan levels" in capsys.readouterr().err
    assert main(["--n", "1", "--seed", "1", "--out", str(out), "--level", "worn"]) == 2
    assert not out.exists()
    out.write_text("in the way")
    assert main(["--n", "1", "--seed", "1", "--out", str(out)]) == 2
    assert "letters" in capsys.readouterr().err
