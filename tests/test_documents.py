"""Pages as reviewers see them, from files that mean harm too."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from pdf_samples import A4, PICTURE, assembled, make_pdf, say, stream
from PIL import Image

from ocr_sprint.core.errors import DataError
from ocr_sprint.documents import ocr
from ocr_sprint.documents.ocr import read_page
from ocr_sprint.documents.pages import Pixels, Span, Turn, read_pages, upright
from ocr_sprint.documents.pictures import PagePictures, page_png
from ocr_sprint.documents.pipeline import Processed, process
from ocr_sprint.review.documents import document, page_frame
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.jobs import Job
from ocr_sprint.review.ledger import NotFoundError
from ocr_sprint.review.store import open_store
from ocr_sprint.review.verify_store import verify_store
from ocr_sprint.tools.cli import main

LETTER = make_pdf((A4, say()), (A4, say(y=100)))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pixels(picture: bytes) -> Pixels:
    with Image.open(io.BytesIO(picture)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image)


def ink(page: Pixels) -> tuple[float, float, float, float]:
    rows, columns = np.where(page < 128)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


# Where the boxes of the evidence lie, there is the ink


class SignReader:
    "An engine that knows a page is upright by its ink, a wide bar in the upper left."

    version = "sign"

    def read(self, page: Pixels) -> list[Span]:
        left, top, right, bottom = ink(page)
        is_upright = right - left > bottom - top and left + right < page.shape[1] and top + bottom < page.shape[0]
        return [upright("SPRIN", (left, top, right, bottom), 0.99 if is_upright else 0.2)] * 4


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("kind", ["png", "large.png", "pdf"])
def test_a_page_has_the_frame_of_its_boxes(
    kind: str, turn: Turn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ocr, "engine", lambda _: SignReader())
    sheet = np.full((3000 if kind == "large.png" else 900, 600), 255, np.uint8)
    sheet[100:160, 50:250] = 0
    image = Image.fromarray(np.rot90(sheet, turn // 90).copy())
    path = tmp_path / f"letter.{kind}"
    image.save(path)
    (page,) = (read_page(page, "paddle") for page in read_pages(path))
    assert page.turn == turn
    shown = pixels(page_png(path.read_bytes(), 1, turn=page.turn))
    assert shown.shape == (page.height, page.width)
    assert ink(shown) == pytest.approx(page.spans[0].box, abs=1)
    small = pixels(page_png(path.read_bytes(), 1, turn=page.turn, long_side=300))
    assert max(small.shape) == 300
    scale = 300 / max(page.width, page.height)
    assert ink(small) == pytest.approx([side * scale for side in page.spans[0].box], abs=2)


def test_each_page_is_drawn() -> None:
    with PagePictures() as pictures:
        first, second = (pixels(pictures.page(LETTER, number)) for number in (1, 2))
    assert ink(first)[1] < 1000 < ink(second)[1]


# Files that mean harm


def laughing_pdf(depth: int) -> bytes:
    "Each form draws the one before it ten times."
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 595 842] "
    top = b"/Contents 4 0 R /Resources << /XObject << /X %d 0 R >> >>" % (10 + depth)
    forms = {
        10 + level: stream(b"/X Do " * 10, form + b"/Resources << /XObject << /X %d 0 R >> >>" % (9 + level))
        for level in range(1, depth + 1)
    }
    return assembled(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] %s >>" % top,
            4: stream(b"/X Do"),
            10: stream(b"0 0 100 100 re f ", form),
            **forms,
        }
    )


HARMFUL: MappingProxyType[str, tuple[bytes, str]] = MappingProxyType(
    {
        "144 million pixels": (png(Image.new("1", (12_000, 12_000))), "page 1 has 12000 x 12000 pixels"),
        "more than the memory": (png(Image.new("RGB", (7000, 7000))), "needs more memory"),
        "a thousand million rectangles": (laughing_pdf(9), "page 1 needs more memory or time than a page may take"),
        "torn": (png(Image.effect_noise((300, 300), 90))[:9000], "the image cannot be decoded"),
        "text": (b"no letter", "neither a PDF nor an image"),
        "nothing": (b"", "the file is empty"),
    }
)


def test_a_harmful_file_is_one_line_and_the_next_page_is_drawn() -> None:
    with PagePictures(megabytes=150, seconds=2) as pictures:
        for name, (content, reason) in HARMFUL.items():
            with pytest.raises(DataError) as caught:
                pictures.page(content, 1, filename="sprint-042.pdf")
            assert str(caught.value).startswith("sprint-042.pdf: "), name
            assert reason in str(caught.value)
            assert pixels(pictures.page(LETTER, 1)).shape == (2339, 1653)


def test_a_page_as_large_as_a_hall_is_drawn_small() -> None:
    hall = make_pdf((b"/MediaBox [0 0 14400 14400]", PICTURE))
    assert pixels(page_png(hall, 1)).shape == (2400, 2400)
    assert pixels(page_png(hall, 1, long_side=4800)).shape == (4800, 4800)


def test_many_threads_share_the_processes() -> None:
    bomb, _ = HARMFUL["144 million pixels"]

    def draw(index: int) -> int | str:
        try:
            return len(pictures.page((LETTER, bomb)[index % 2], 1, long_side=200))
        except DataError as error:
            return str(error)[:26]

    with PagePictures(2) as pictures, ThreadPoolExecutor(8) as threads:
        drawn = list(threads.map(draw, range(40)))
    assert len(set(drawn[::2])) == 1
    assert set(drawn[1::2]) == {"document: page 1 has 12000"}


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    page_png(LETTER, 1)
    with pytest.raises(DataError):
        page_png(HARMFUL["torn"][0], 1)
    assert list(tmp_path.iterdir()) == []


# The store gives back what came, and says how its pages lie


ROTATED = make_pdf((A4 + b" /Rotate 90", b"0 1 -1 0 595 0 cm " + say("NOMOR : SPRIN/1/I/2025") + say(y=300)))


def test_a_box_of_the_evidence_lies_on_its_words(url: str, tmp_path: Path) -> None:
    path = tmp_path / "sprint-042.pdf"
    path.write_bytes(ROTATED)
    with open_store(url) as store:
        job_id = store.add_job(**vars(process(path)), document=ROTATED)
        job, file = store.job(job_id), document(store, job_id)
        assert (file.filename, file.media_type, file.content) == ("sprint-042.pdf", "application/pdf", ROTATED)
        frame = page_frame(job, 1)
        shown = pixels(page_png(file.content, 1, turn=frame.turn))
        assert shown.shape == (frame.height, frame.width)
        assert isinstance(job.evidence, dict)
        assert isinstance(job.result, dict)
        assert job.result["header"]["nomor_sprint"] == "SPRIN/1/I/2025"
        ((place,),) = (job.evidence["fields"][name] for name in ["header.nomor_sprint"])
        left, top, right, bottom = place["box"]
        assert ink(shown[top : bottom + 1, left : right + 1])[:2] == pytest.approx((0, 0), abs=12)
        assert (shown[top - 60 : top - 5] >= 128).all()
        with pytest.raises(DataError, match="there is no page 2; the document has 1"):
            page_frame(job, 2)


def test_a_job_without_its_file_says_so(url: str, tmp_path: Path) -> None:
    path = tmp_path / "sprint-042.pdf"
    path.write_bytes(ROTATED)
    with open_store(url) as store:
        job_id = store.add_job(**vars(process(path)))
        with pytest.raises(DataError, match=r"sprint-042\.pdf: its file is not in the store"):
            document(store, job_id)
        store.add_job(**vars(process(path)), document=ROTATED)
        assert document(store, job_id).content == ROTATED
        assert store.job(job_id).run == 1
        with pytest.raises(NotFoundError):
            document(store, "c5da6747")


# The command that brings them in


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "sprint-042.pdf").write_bytes(ROTATED)
    return folder


def only_job(url: str) -> Job:
    with open_store(url, create=False) as store:
        (job,) = store.jobs()
    return job


def test_ingest_keeps_the_file_and_reads_again_when_asked(url: str, inbox: Path) -> None:
    assert main(["ingest", str(inbox), "--store", url]) == 0
    job = only_job(url)
    with open_store(url) as store:
        assert document(store, job.job_id).content == ROTATED
        store.correct(job.job_id, [Edit("set", "header.perihal", "Pengamanan")], by="reviewer-a")
        store.approve(job.job_id, by="reviewer-a")
    corrected = only_job(url)
    assert main(["ingest", str(inbox), "--store", url]) == 0
    assert only_job(url) == corrected
    assert main(["ingest", str(inbox), "--store", url, "--rerun"]) == 0
    again = only_job(url)
    assert (again.run, again.approved, again.result) == (2, False, job.result)
    with open_store(url) as store:
        assert store.events(job.job_id) == []
        assert list(verify_store(store)) == []


def test_a_further_run_that_fails_changes_nothing(
    url: str, inbox: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", str(inbox), "--store", url]) == 0
    before = only_job(url)

    def fail(path: Path, **_: object) -> Processed:
        return replace(process(path), result=None, error=f"{path.name}: torn")

    monkeypatch.setattr("ocr_sprint.documents.pipeline.process", fail)
    assert main(["ingest", str(inbox), "--store", url, "--rerun"]) == 1
    assert "sprint-042.pdf: torn; the result that was there stays" in capsys.readouterr().out
    assert only_job(url) == before


def test_a_job_without_its_file_gets_it(url: str, inbox: Path) -> None:
    with open_store(url) as store:
        job_id = store.add_job(**vars(process(inbox / "sprint-042.pdf")))
    before = only_job(url)
    assert main(["ingest", str(inbox), "--store", url]) == 0
    with open_store(url) as store:
        assert document(store, job_id).content == ROTATED
    assert only_job(url) == before


@pytest.mark.parametrize("words", [["--processes", "0"], ["--engine", "none"], ["absent"]])
def test_what_is_wrong_with_the_call_is_said_before_a_store_is_made(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    assert main(["ingest", str(tmp_path), *words, "--store", f"sqlite:///{file}"]) == 2
    assert not file.exists()
