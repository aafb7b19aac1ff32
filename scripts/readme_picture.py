"""Make nbs/images/letter.png, the README's picture: one letter as OCR read it, its evidence beside its fields.

The letter is the tutorial's. Nothing is drawn by hand: run this again when the pipeline or the letters have changed. It
needs Chromium, which lays the two halves out: readme_picture.py [--chromium PATH].
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, ImageStat
from playwright.sync_api import sync_playwright

from ocr_sprint.core.canonical import Json
from ocr_sprint.documents.letter import result_data
from ocr_sprint.documents.pages import page_image
from ocr_sprint.documents.pipeline import Processed, process
from ocr_sprint.documents.synthetic import make_letter
from ocr_sprint.review.fieldpath import get_value
from ocr_sprint.tools.demo import edits_towards

PICTURE = Path(__file__).resolve().parent.parent / "nbs" / "images" / "letter.png"
WIDTH, PAGE_WIDTH = 1400, 700  # pixels
COLOURS = 64  # keeps the file small
MARGIN = 60  # pixels of the page around what was read
DOUBT = 0.99
HEADER = ("nomor_sprint", "tanggal", "tempat", "perihal", "berlaku_mulai", "berlaku_selesai", "satuan")
PEOPLE = ("nama", "pangkat", "nrp", "jabatan")
STYLE = """
* { box-sizing: border-box; margin: 0; }
body { display: flex; gap: 28px; width: 1400px; background: #fff; color: #1f2328; }
body { font: 15px/1.35 "DejaVu Sans", sans-serif; }
.page { position: relative; flex: none; align-self: flex-start; border: 1px solid #d0d7de; }
.page img { display: block; }
.box { position: absolute; background: #0072b22e; }
.box.doubt { outline: 3px solid #d55e00; background: #d55e0026; }
.fields { padding: 4px 8px 0 0; flex: 1; }
h2 { font-size: 18px; margin: 0 0 4px; }
table { border-collapse: collapse; width: 100%; margin-bottom: 22px; }
td, th { text-align: left; vertical-align: top; padding: 4px 8px; border-bottom: 1px solid #d0d7de; }
th { font-size: 14px; color: #59636e; font-weight: normal; }
td.doubt { border-left: 5px solid #d55e00; }
td.sure { border-left: 5px solid #0072b2; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.small { font-size: 13px; }
code { font: 14px "DejaVu Sans Mono", monospace; }
p { margin-bottom: 22px; }
"""


Box = tuple[int, int, int, int]  # left, top, right, bottom


def first_page(read: Processed) -> Iterator[tuple[str, Box]]:
    """Each field with the place on the first page that it was read from."""
    evidence: Any = read.evidence
    for path, places in evidence["fields"].items():
        yield from ((path, tuple(place["box"])) for place in places if place["page"] == 1)


def doubtful(read: Processed, path: str) -> bool:
    """Whether a reviewer should look at this field first."""
    flagged = any(flag.partition("@")[2] == path for flag in read.review_flags)
    return flagged or read.field_confidence.get(path, 1.0) < DOUBT


def boxes(read: Processed, left: int, top: int, scale: float) -> Iterator[str]:
    """The places on the first page that fields were read from, each place once, doubtful ones on top."""
    places: dict[Box, bool] = {}
    for path, box in first_page(read):
        places[box] = places.get(box, False) or doubtful(read, path)
    for box, doubt in sorted(places.items(), key=lambda item: item[1]):
        x, y, right, bottom = (
            round((side - origin) * scale) for side, origin in zip(box, (left, top) * 2, strict=True)
        )
        position = f"left:{x}px;top:{y}px;width:{right - x}px;height:{bottom - y}px"
        yield f'<div class="box{" doubt" if doubt else ""}" style="{position}"></div>'


def header_row(read: Processed, path: str, value: Any) -> str:
    """One field with its value and confidence."""
    confidence = read.field_confidence.get(path)
    mark = "doubt" if doubtful(read, path) else "sure"
    shown = "–" if value is None else escape(str(value))
    number = "–" if confidence is None else f"{confidence:.3f}"
    return f'<tr><td class="{mark}">{path}</td><td>{shown}</td><td class="number">{number}</td></tr>'


def corrections(read: Processed, truth: Json) -> str:
    """What a reviewer changes: the field, as read, and as printed."""
    rows = ""
    for edit in edits_towards(truth, read.result):
        before = None if edit.op == "add" else get_value(read.result, edit.field_path)
        cells = (edit.field_path, "–" if before is None else before, edit.value)
        rows += "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
    return f'<table class="small"><tr><th>field</th><th>read</th><th>printed</th></tr>{rows}</table>'


def fields_html(read: Processed, truth: Json) -> str:
    """The right half: header, people, flags and corrections."""
    result: Any = read.result
    rows = [header_row(read, f"header.{name}", result["header"][name]) for name in HEADER]
    rows.append(header_row(read, "penandatangan.jabatan", result["penandatangan"]["jabatan"]))
    people = [
        "<tr>" + "".join(f"<td>{escape(str(person[name] or '–'))}</td>" for name in PEOPLE) + "</tr>"
        for person in result["personel"]
    ]
    flags = "<br>".join(f"<code>{escape(flag)}</code>" for flag in read.review_flags) or "none"
    return (
        f"<h2>Read by OCR</h2><table><tr><th>field</th><th>value</th><th>confidence</th></tr>{''.join(rows)}</table>"
        f'<table class="small"><tr>{"".join(f"<th>personel.{name}</th>" for name in PEOPLE)}</tr>'
        f"{''.join(people)}</table><h2>Flagged for review</h2><p>{flags}</p>"
        f"<h2>Corrected by a reviewer</h2>{corrections(read, truth)}"
    )


def page_html(read: Processed, scan: Path, truth: Json) -> str:
    """Page and fields beside each other, as one HTML page."""
    page = Image.fromarray(page_image(scan, 1))
    lefts, tops, rights, bottoms = zip(*(box for _, box in first_page(read)), strict=True)
    left, top = max(min(lefts) - 2 * MARGIN, 0), max(min(tops) - MARGIN, 0)
    page = page.crop((left, top, min(max(rights) + MARGIN, page.width), min(max(bottoms) + MARGIN, page.height)))
    paper = int(ImageStat.Stat(page).median[0])
    # Without the paper's grain the picture is a third of the size.
    page = page.point(lambda grey: paper if grey > paper - 16 else grey)
    scale = PAGE_WIDTH / page.width
    file = io.BytesIO()
    page.resize((PAGE_WIDTH, round(page.height * scale)), Image.Resampling.LANCZOS).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    marks = "".join(boxes(read, left, top, scale))
    return (
        f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style>'
        f'<div class="page"><img src="data:image/png;base64,{data}">{marks}</div>'
        f'<div class="fields">{fields_html(read, truth)}</div>'
    )


def photograph(html: str, chromium: str) -> Image.Image:
    """The page as Chromium lays it out."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 600})
        page.set_content(html)
        taken = page.screenshot(full_page=True)
        browser.close()
    return Image.open(io.BytesIO(taken)).convert("RGB")


def main() -> None:
    """Read the letter and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--chromium", default=shutil.which("chromium"), help="the browser; the one on the path by default"
    )
    chromium = parser.parse_args().chromium
    if chromium is None:
        parser.error("no chromium on the path; install one, or name it with --chromium")
    letter = make_letter(44, layout="ruled", level="medium", pen=True)
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / f"letter{letter.suffix}"
        scan.write_bytes(letter.data)
        picture = photograph(page_html(process(scan), scan, result_data(letter.truth)), chromium)
    PICTURE.parent.mkdir(exist_ok=True)
    picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE.name}: {picture.width} x {picture.height}, {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
