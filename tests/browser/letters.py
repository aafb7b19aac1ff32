"""Fictitious letters as they are after reading, made without reading."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.documents.letter import Lampiran, Penandatangan, Personel, Result, result_data
from ocr_sprint.review.store import Store, open_store

NAMES = ("ACHMAD SUBAGYO", "BUDI HARTONO", "CITRA LESTARI", "DEWI ANGGRAINI", "EKO PRASETYO")
WIDTH, HEIGHT = 1654, 2339


def letter(number: int, people: int) -> dict[str, Any]:
    """What was read: one line of the table for each person."""
    result = Result(penandatangan=Penandatangan(nama="FAJAR NUGROHO"), lampiran=Lampiran(ada=False))
    data: dict[str, Any] = result_data(result)
    data["header"] |= {"jenis": "SURAT PERINTAH", "nomor_sprint": f"Sprin/{number}/V/2025", "perihal": "patroli"}
    data["header"] |= {"satuan": "POLRES BOGOR", "tanggal": "2025-05-28", "tahun": 2025, "nomor_urut": number}
    data["dasar"] = ["Undang-Undang Nomor 2 Tahun 2002", "Rencana kegiatan"]
    for n in range(people):
        person = Personel(no=n + 1, nama=NAMES[n % 5], pangkat="AIPDA", nrp=f"{77060000 + n:08}", jenis_id="NRP")
        data["personel"].append(person.model_dump(mode="json"))
    return data


def drawn(result: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """A page that shows it, and where each value stands."""
    page = Image.new("L", (WIDTH, HEIGHT), 250)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(26)
    places: dict[str, Any] = {}

    def put(path: str, value: object, left: int, top: int) -> None:
        pen.text((left, top), str(value), 20, font)
        right, bottom = left + max(round(pen.textlength(str(value), font)), 12), top + 34
        places[path] = [{"page": 1, "box": [left, top, right, bottom], "words": str(value)}]

    for row, name in enumerate(("jenis", "nomor_sprint", "perihal", "satuan", "tanggal")):
        put(f"header.{name}", result["header"][name], 420, 200 + 60 * row)
    for row, person in enumerate(result["personel"]):
        for column, name in enumerate(("no", "nama", "pangkat", "nrp")):
            put(f"personel[{row}].{name}", person[name], 200 + 260 * column, 640 + 52 * row)
    file = io.BytesIO()
    page.save(file, "PNG", compress_level=1)
    frames = [{"page": 1, "width": WIDTH, "height": HEIGHT, "turn": 0, "source": "ocr"}]
    return file.getvalue(), {"pages": frames, "fields": places}


def add_letter(
    store: Store, number: int, people: int = 3, doubtful: tuple[str, ...] = (), flag: str = "nama_berangka"
) -> str:
    """One letter; the fields that are named are in doubt, for the reason of the flag."""
    result = letter(number, people)
    content, evidence = drawn(result)
    return store.add_job(
        document=content,
        filename=f"sprint-{number:03}.png",
        source_kind="image",
        document_sha256=sha256_hex(content),
        pages=1,
        engine="paddle",
        result=result,
        confidence=0.97 - number / 10_000,
        field_confidence=dict.fromkeys(evidence["fields"], 0.99) | dict.fromkeys(doubtful, 0.4),
        evidence=evidence,
        review_flags=[f"{flag}@{path}" for path in doubtful],
        ocr_text=None,
        error=None,
    )


def new_store(path: Path) -> Store:
    """A store that the test and the kernel share."""
    return open_store(f"sqlite:///{path}")
