"""Folders with good and bad files become jobs, the same ones whoever does the work."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pipeline_samples as samples
import pytesseract
import pytest
from pdf_samples import A4, make_pdf, say, to_unicode
from PIL import Image, ImageDraw, ImageFont

from ocr_sprint.core.canonical import canonical, sha256_hex
from ocr_sprint.core.cluster import local_cluster
from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.work import work
from ocr_sprint.documents import pipeline
from ocr_sprint.documents.fiction import Layout
from ocr_sprint.documents.letter import fields, parse_result, result_data
from ocr_sprint.documents.ocr import EngineName, TesseractEngine, engine
from ocr_sprint.documents.pages import Pixels, Span
from ocr_sprint.documents.pipeline import Ingested, Processed, find_documents, ingest, process
from ocr_sprint.documents.synthetic import Letter, Level, make_letter
from ocr_sprint.review.database import reading
from ocr_sprint.review.schema import documents
from ocr_sprint.review.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'store.db'}", validate=parse_result) as opened:
        yield opened


def write_letter(folder: Path, seed: int, layout: Layout = "block", level: Level = "digital") -> Letter:
    letter = make_letter(seed, layout=layout, level=level)
    (folder / f"{seed}-{level}{letter.suffix}").write_bytes(letter.data)
    return letter


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    "Two letters with a text layer, a copy of the first, and files that nobody can read."
    folder = tmp_path / "inbox"
    (folder / "deeper").mkdir(parents=True)
    write_letter(folder, 7200)
    write_letter(folder / "deeper", 7201, "ruled")
    (folder / "copy.pdf").write_bytes((folder / "7200-digital.pdf").read_bytes())
    (folder / "empty.pdf").write_bytes(b"")
    (folder / "note.PDF").write_text("not a PDF")
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "vast.pdf").write_bytes(make_pdf(*[(A4, b"")] * 500))
    (folder / "readme.txt").write_text("not looked at")
    return folder


def by_name(done: list[Ingested]) -> dict[str, Ingested]:
    return {each.path.name: each for each in done}


# A folder becomes jobs


def test_a_folder_becomes_jobs_and_bad_files_failed_ones(inbox: Path, store: Store) -> None:
    done = list(ingest([inbox], store))
    assert [each.path for each in done] == find_documents([inbox])
    found = by_name(done)
    assert set(found) == {
        "7200-digital.pdf", "7201-digital.pdf", "copy.pdf", "empty.pdf", "note.PDF", "torn.png", "vast.pdf",
    }  # fmt: skip
    reasons = {
        "empty.pdf": "empty.pdf: the file is empty",
        "note.PDF": "note.PDF: neither a PDF nor an image (PNG, JPEG, TIFF, BMP, WebP)",
        "torn.png": "torn.png: the image cannot be decoded (its header is damaged); is it complete?",
        "vast.pdf": "vast.pdf: 500 pages, more than 200; split the file",
    }
    assert {name: each.error for name, each in found.items() if each.error} == reasons
    for each in done:
        assert each.job_id
        job = store.job(each.job_id)
        assert job.error == each.error
        assert (job.result is None) == bool(each.error)
        assert job.source_kind == ("image" if each.path.suffix == ".png" else "pdf")
    for seed, layout in ((7200, "block"), (7201, "ruled")):
        truth = make_letter(seed, layout=layout, level="digital").truth  # type: ignore[arg-type]
        assert store.job(found[f"{seed}-digital.pdf"].job_id or "").result == result_data(truth)


def test_a_copy_is_known_in_the_same_run_and_read_once(inbox: Path, store: Store) -> None:
    found = by_name(list(ingest([inbox], store)))
    first, copy = found["7200-digital.pdf"], found["copy.pdf"]
    assert (first.known, copy.known) == (False, True)
    assert first.job_id == copy.job_id
    assert len(list(store.jobs())) == 6


def test_a_second_run_reads_only_what_failed(inbox: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = list(ingest([inbox], store))
    read = list[str]()

    def watched(path: Path, name: EngineName) -> Processed:
        read.append(path.name)
        return process(path, name)

    monkeypatch.setattr(pipeline, "process", watched)
    second = list(ingest([inbox], store))
    assert sorted(read) == ["empty.pdf", "note.PDF", "torn.png", "vast.pdf"]
    assert [(each.path, each.job_id, each.error) for each in second] == [(e.path, e.job_id, e.error) for e in first]
    assert [each.known for each in second] == [not each.error for each in second]


def test_a_copy_of_a_failed_file_failed_too(tmp_path: Path, store: Store) -> None:
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(b"%PDF-1.7 torn")
    first, second = ingest([tmp_path], store)
    assert (first.known, second.known) == (False, True)
    assert first.error == second.error == store.job(first.job_id or "").error
    assert first.job_id == second.job_id


def test_a_failure_that_passes_becomes_a_result(inbox: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    letter = inbox / "7200-digital.pdf"
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "process", samples.process_or_fail)
        (failed,) = ingest([letter], store)
    reason = "7200-digital.pdf: the pipeline failed (RuntimeError: paddle stumbles over 7200-digital.pdf)"
    assert failed.error == store.job(failed.job_id or "").error == reason
    (done,) = ingest([letter], store)
    assert (done.job_id, done.known, done.error) == (failed.job_id, False, None)
    assert store.job(done.job_id or "").result


def test_a_file_that_cannot_be_opened_stops_nobody(inbox: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = pipeline.file_sha256

    def refuse(path: Path) -> str:
        if path.name == "copy.pdf":
            raise DataError(f"{path.name}: cannot be read (Permission denied)")
        return opened(path)

    monkeypatch.setattr(pipeline, "file_sha256", refuse)
    found = by_name(list(ingest([inbox], store)))
    assert found["copy.pdf"] == Ingested(
        inbox / "copy.pdf", None, known=False, error="copy.pdf: cannot be read (Permission denied)"
    )
    assert found["7200-digital.pdf"].error is None
    assert len(found) == 7


def test_a_file_that_changes_meanwhile_is_left_for_the_next_run(
    inbox: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = inbox / "7200-digital.pdf"
    first = letter.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "_content", lambda *_: None)
        (changed,) = ingest([letter], store)
    assert (changed.job_id, changed.error) == (None, f"{letter.name}: changed while it was read; ingest it again")
    assert list(store.jobs()) == []
    (done,) = ingest([letter], store)
    assert done.error is None
    with reading(store.engine) as connection:
        assert connection.execute(documents.select()).all() == [(sha256_hex(first), "application/pdf", first)]


def test_paths_that_are_no_files_are_a_mistake(tmp_path: Path, store: Store) -> None:
    for path in (tmp_path / "absent.pdf", Path("/dev/null")):
        with pytest.raises(UsageError, match=re.escape(f"{path}: no such file or folder")):
            list(ingest([path], store))
    (tmp_path / "empty").mkdir()
    assert list(ingest([tmp_path / "empty"], store)) == []


def test_a_run_that_is_left_keeps_what_was_done(inbox: Path, store: Store) -> None:
    running = ingest([inbox], store)
    first = next(running)
    running.close()
    assert [job.job_id for job in store.jobs(approved=None)] == [first.job_id]


def test_a_worker_that_dies_leaves_a_failed_job(inbox: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_letter(inbox, 7203)
    (inbox / "7203-digital.pdf").rename(inbox / "killer.pdf")
    monkeypatch.setattr(pipeline, "process", samples.process_or_die)
    done = list(ingest([inbox], store, processes=2))
    assert [each.path for each in done] == find_documents([inbox])
    found = by_name(done)
    assert re.fullmatch(r"killer\.pdf: the pipeline failed \(WorkerDied: .+\)", found["killer.pdf"].error or "")
    assert store.job(found["killer.pdf"].job_id or "").error == found["killer.pdf"].error
    assert not found["7200-digital.pdf"].error
    assert not found["7201-digital.pdf"].error


# Whoever does the work, the bytes are the same


def as_json(done: Processed) -> bytes:
    return canonical(
        {**vars(done), "field_confidence": dict(done.field_confidence), "review_flags": list(done.review_flags)}
    )


SCANS: tuple[tuple[int, Layout, Level], ...] = (
    (9000, "block", "clean"),
    (9003, "keyvalue", "medium"),
    (9004, "keyvalue", "clean"),
    (9000, "block", "medium"),
)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Letter]:
    folder = tmp_path_factory.mktemp("scans")
    letters = [write_letter(folder, *one) for one in SCANS]
    names = [f"{seed}-{level}{letter.suffix}" for (seed, _, level), letter in zip(SCANS, letters, strict=True)]
    return {folder / name: letter for name, letter in zip(names, letters, strict=True)}


@pytest.fixture(scope="module")
def read(scans: dict[Path, Letter]) -> list[Processed]:
    return [process(path) for path in scans]


def test_scans_are_read_right(scans: dict[Path, Letter], read: list[Processed]) -> None:
    for letter, done in zip(scans.values(), read, strict=True):
        found, truth = parse_result(done.result), letter.truth
        assert done.error is None
        assert (found.header.nomor_sprint, found.header.tanggal) == (truth.header.nomor_sprint, truth.header.tanggal)
        assert [(p.nrp, p.pangkat) for p in found.personel] == [(p.nrp, p.pangkat) for p in truth.personel]
        assert set(done.field_confidence) <= set(fields(found))
        assert engine("paddle").version == done.engine


def test_two_processes_and_a_cluster_say_the_same(scans: dict[Path, Letter], read: list[Processed]) -> None:
    alone = [as_json(done) for done in read]
    task = partial(process, name="paddle")
    beside = list(work(task, list(scans), processes=2))
    with local_cluster(processes=2) as client:
        cluster = list(work(task, list(scans), client=client))
    for outcomes in (beside, cluster):
        assert [outcome.error for outcome in outcomes] == [None] * len(scans)
        assert [as_json(outcome.value) for outcome in outcomes if outcome.value] == alone


def test_what_is_stored_is_what_was_read(scans: dict[Path, Letter], read: list[Processed], store: Store) -> None:
    for done in read:
        job = store.job(store.add_job(**vars(done)))
        kept: dict[str, Any] = {name: getattr(job, name) for name in ("result", "evidence", "ocr_text", "confidence")}
        assert canonical(kept) == canonical({name: getattr(done, name) for name in kept})
        assert tuple(job.review_flags) == done.review_flags
    assert len(list(store.jobs())) == len(scans)


# Pages that lie wrong, and pages that are no letters


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_page_that_lies_wrong_is_turned(
    turn: int, scans: dict[Path, Letter], read: list[Processed], tmp_path: Path
) -> None:
    upright, letter = next(iter(scans.items()))
    with Image.open(upright) as image:
        image.rotate(turn, expand=True).save(tmp_path / "turned.png")
    done = process(tmp_path / "turned.png")
    assert done.review_flags[0] == "halaman_diputar:1"
    (page,) = done.evidence["pages"]  # type: ignore[index, call-overload]
    assert page["turn"] == turn
    straight = read[0].evidence["pages"][0]  # type: ignore[index, call-overload]
    assert (page["width"], page["height"]) == (straight["width"], straight["height"])
    found, truth = parse_result(done.result), letter.truth
    assert found.header.nomor_sprint == truth.header.nomor_sprint
    assert [(p.nama, p.nrp) for p in found.personel] == [(p.nama, p.nrp) for p in truth.personel]


def flags_of(path: Path) -> tuple[str, ...]:
    done = process(path)
    assert done.error is None
    return done.review_flags


def test_blank_pages_are_flagged(tmp_path: Path) -> None:
    Image.new("L", (1654, 2339), 255).save(tmp_path / "blank.png")
    (tmp_path / "blank.pdf").write_bytes(make_pdf((A4, b"")))
    for name in ("blank.png", "blank.pdf"):
        assert flags_of(tmp_path / name) == ("halaman_kosong:1", "halaman_kosong")
    (tmp_path / "half.pdf").write_bytes(make_pdf((A4, say()), (A4, b"")))
    assert "halaman_kosong:2" in flags_of(tmp_path / "half.pdf")


def test_noise_is_no_letter(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (1200, 900), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg")
    assert {"bukan_surat_perintah", "halaman_kosong"} & set(flags_of(tmp_path / "noise.jpg"))


def test_other_papers_are_no_letters(tmp_path: Path) -> None:
    text = say("Undangan rapat warga", y=700) + say("Kami mengundang Bapak dan Ibu ke rapat warga hari Minggu", y=650)
    (tmp_path / "invitation.pdf").write_bytes(make_pdf((A4, text)))
    assert flags_of(tmp_path / "invitation.pdf") == ("bukan_surat_perintah",)


def test_a_coarse_scan_is_flagged(scans: dict[Path, Letter], tmp_path: Path) -> None:
    with Image.open(next(iter(scans))) as image:
        image.reduce(3).save(tmp_path / "coarse.png")
    assert "resolusi_rendah:1" in flags_of(tmp_path / "coarse.png")


@pytest.mark.parametrize("size", [(1, 1), (2400, 1), (1, 2400), (30, 8)])
def test_slivers_are_blank(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("L", size, 255).save(tmp_path / "sliver.png")
    assert flags_of(tmp_path / "sliver.png") == ("halaman_kosong:1", "halaman_kosong")


def test_any_text_layer_can_be_stored(tmp_path: Path, store: Store) -> None:
    stray = {ord("Z"): "d835", ord("Q"): "0000", ord("X"): "e041"}
    content = say("SURAT PERINTAH") + say("Nomor : Sprin/1/I/2025 ZQX", y=400) + say(y=300)
    data = make_pdf((A4, content), extra=to_unicode(stray), font=b"/ToUnicode 10 0 R")
    (tmp_path / "stray.pdf").write_bytes(data)
    (done,) = ingest([tmp_path / "stray.pdf"], store)
    assert done.error is None
    text = store.job(done.job_id or "").ocr_text or ""
    assert "SURAT PERINTAH" in text
    assert "\0" not in text


# Engines


def sign(*texts: str) -> Pixels:
    "A board with lines of large type."
    board = Image.new("L", (900, 60 + 90 * len(texts)), 255)
    for index, text in enumerate(texts):
        ImageDraw.Draw(board).text((40, 40 + 90 * index), text, 0, ImageFont.load_default(48))
    return np.asarray(board)


def text_of(spans: list[Span]) -> str:
    return " ".join(span.text for span in sorted(spans, key=lambda span: span.box[1]))


@pytest.mark.parametrize("name", ["paddle", "rapidocr"])
def test_each_engine_reads_a_sign(name: EngineName) -> None:
    spans = engine(name).read(sign("SURAT PERINTAH", "NRP 77060000"))
    assert text_of(spans).replace(" ", "") == "SURATPERINTAHNRP77060000"
    assert all(0.5 < span.score <= 1 for span in spans)
    for span, top in zip(sorted(spans, key=lambda span: span.box[1]), (40, 130), strict=True):
        assert abs(span.box[0] - 40) < 25
        assert abs(span.box[1] - top) < 25
    assert engine(name).read(sign()) == []


def test_tesseract_reads_a_sign_where_it_is_installed() -> None:
    if shutil.which("tesseract"):
        assert text_of(TesseractEngine().read(sign("SURAT PERINTAH", "NRP 77060000"))) == "SURAT PERINTAH NRP 77060000"
    else:
        with pytest.raises(UsageError, match="the engine tesseract is not installed"):
            TesseractEngine()


def test_tesseracts_words_become_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tesseract"
    program.write_text(samples.FAKE_TESSERACT)
    program.chmod(0o755)
    monkeypatch.setattr(pytesseract.pytesseract, "tesseract_cmd", str(program))
    tesseract = TesseractEngine()
    spans = tesseract.read(sign())
    assert tesseract.version == "tesseract-9.9.9"
    assert [(span.text, span.box, span.score) for span in spans] == [
        ("SURAT PERINTAH", (10, 10, 250, 32), 0.91),
        ("KET", (400, 10, 440, 30), 0.8),
    ]


@pytest.fixture
def without_tesseract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytesseract.pytesseract, "tesseract_cmd", "no-such-program")
    engine.cache_clear()


@pytest.mark.usefixtures("without_tesseract")
def test_an_engine_that_is_absent_stops_the_run(tmp_path: Path, store: Store) -> None:
    Image.fromarray(sign("SURAT PERINTAH")).save(tmp_path / "sign.png")
    with pytest.raises(UsageError, match="the engine tesseract is not installed; install it or choose"):
        list(ingest([tmp_path / "sign.png"], store, name="tesseract"))
    assert list(store.jobs()) == []


@pytest.mark.usefixtures("without_tesseract")
def test_an_engine_is_only_asked_for_where_it_is_needed(inbox: Path, store: Store) -> None:
    found = by_name(list(ingest([inbox], store, name="tesseract")))
    assert found["7200-digital.pdf"].error is None


def test_an_unknown_engine_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="unknown engine 'abbyy'; choose one of paddle, rapidocr, tesseract"):
        engine("abbyy")  # type: ignore[arg-type]
