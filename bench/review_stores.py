"""Large fictitious stores for measurements, made from a seed and valid to the last hash."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from random import Random
from typing import Any

from sqlalchemy import Table

from ocr_sprint.core.canonical import Json, encode, sha256_hex
from ocr_sprint.review.chain import GENESIS, entry_fields, next_entry
from ocr_sprint.review.database import utc_text, writing
from ocr_sprint.review.edits import Edit, plan
from ocr_sprint.review.jobs import job_columns, job_id_of, result_hashes, satuan_of
from ocr_sprint.review.replay import Event
from ocr_sprint.review.schema import approvals, events, jobs, runs
from ocr_sprint.review.store import Store

WORDS = (  # noqa: SIM905  # a list of thirty words is no easier to read
    "Penyelidikan kasus pencurian Pengamanan unjuk rasa Patroli wilayah dalam rangka melaksanakan tugas kepolisian "
    "Operasi Ketupat Budi Santoso Siregar Wibowo Kanit Reskrim Kasat Lantas Bintara Urusan Tata"
).split()
RANKS = ("BRIPDA", "BRIPTU", "BRIGADIR", "BRIPKA", "AIPDA", "AIPTU", "IPDA", "IPTU", "AKP", "KOMPOL")
START = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
ROWS = 2_000  # jobs in one insert


def text(random: Random, words: int) -> str:
    """Some words."""
    return " ".join(random.choices(WORDS, k=words))


def person(random: Random, number: int) -> dict[str, Json]:
    """A row of the table of people."""
    return {
        "no": number, "nama": text(random, 2).upper(), "pangkat": random.choice(RANKS),
        "nrp": f"{random.randrange(10**8):08}", "jenis_id": "NRP", "jabatan": text(random, 3), "jabatan_sprin": None,
        "keterangan": None, "kelompok": None,
    }  # fmt: skip


def letter(random: Random, number: int) -> dict[str, Json]:
    """A result of about 1.9 KB with every key that a letter has."""
    unit = f"POLRES {random.randrange(60)}"
    return {
        "header": {
            "jenis": "SURAT PERINTAH", "nomor_sprint": f"Sprin/{number}/I/2025", "nomor_urut": number,
            "bulan_romawi": "I", "kode_klasifikasi": "OPS.1.3.", "tahun": 2025, "tanggal": "2025-01-08",
            "tempat": "Surabaya", "perihal": text(random, 6) if random.random() < 0.7 else None,
            "perihal_sumber": "untuk", "berlaku_mulai": None, "berlaku_selesai": None, "satuan": unit,
        },
        "satuan": {
            "kop": ["KEPOLISIAN NEGARA REPUBLIK INDONESIA", "DAERAH JAWA TIMUR", unit], "tingkat": "polres",
            "nama": unit, "polda": "JAWA TIMUR", "polres": unit, "satfung": None,
        },
        "pertimbangan": text(random, 12), "dasar": [text(random, 9) for _ in range(3)],
        "untuk": [text(random, 9) for _ in range(2)], "tembusan": [text(random, 3)],
        "personel": [person(random, row) for row in range(1, random.randint(2, 5) + 1)],
        "penandatangan": {
            "atas_nama": None, "jabatan": "KAPOLRES", "nama": text(random, 2), "pangkat": "AKBP",
            "nrp": f"{random.randrange(10**8):08}",
        },
        "lampiran": {"ada": False, "nomor": None, "tanggal": None, "judul": None},
    }  # fmt: skip


def edits(random: Random) -> list[Edit]:
    """What a reviewer corrects in one letter: nearly always single fields, sometimes a row."""
    done: list[Edit] = []
    for _ in range(random.choice((1, 1, 2, 3, 4, 7))):
        kind = random.random()
        if kind < 0.25:
            done.append(Edit("set", "header.perihal", text(random, 6)))
        elif kind < 0.95:
            field = random.choice(("nrp", "nama", "pangkat", "jabatan"))
            done.append(Edit("set", f"personel[{random.randrange(2)}].{field}", text(random, 2)))
        elif kind < 0.98:
            done.append(Edit("add", "personel[0]", person(random, 0)))
        else:
            done.append(Edit("set", "personel[1]", person(random, 2)))
    return done


class _Job:
    """The rows of one job, as its store would have written them."""

    def __init__(self, seed: int, number: int) -> None:
        random = Random(f"{seed} {number}")
        self.rows: list[tuple[Table, dict[str, Any]]] = []
        self.number, self.head = number, GENESIS
        made = START + datetime.timedelta(minutes=5 * number)
        at, reviewed = utc_text(made), utc_text(made + datetime.timedelta(minutes=3))
        first = letter(random, number)
        digest = sha256_hex(f"{seed} letter {number}".encode())
        columns: dict[str, Any] = job_columns({
            "filename": f"sprint-{number:06}.pdf", "source_kind": "pdf", "document_sha256": digest, "pages": 1,
            "engine": "paddle", "result": first, "confidence": round(random.uniform(0.4, 1), 4), "evidence": None,
            "field_confidence": {}, "review_flags": ["llm_fallback"] if random.random() < 0.3 else [],
            "ocr_text": None, "error": None,
        })  # fmt: skip
        self.job_id = job_id_of(digest)
        said = {name: columns[name] for name in ("engine", "confidence", "review_flags")}
        self.entry(runs, run=1, finished_at=at, **said, **result_hashes(columns["result"]))
        result: Json = first
        batch: list[Event] = []
        if random.random() < 0.51:
            stamp = Event(1, "set", "", None, None, f"reviewer-{random.randrange(5)}", None, reviewed)
            result, batch = plan(first, edits(random), stamp)
        for event in batch:
            values = {name: encode(getattr(event, name)).decode() for name in ("old_value", "new_value")}
            self.entry(events, **{**event._asdict(), **values})
        approved = random.random() < 0.73
        if approved:
            self.entry(approvals, n=1, run=1, action="approve", after=len(batch), by="reviewer-a", at=reviewed)
        columns |= {"result": encode(result).decode(), "satuan": satuan_of(result)}
        columns |= {"seq": number, "job_id": self.job_id, "run": 1, "version": 1 + bool(batch) + approved}
        columns |= {"approved": approved, "reviewed_by": "reviewer-a" if approved else None, "created_at": at}
        columns |= {"reviewed_at": reviewed if approved else None, "changed_at": reviewed if batch or approved else at}
        self.rows.append((jobs, columns | {"head": self.head, "change_xid": 0, "change_seq": number}))

    def entry(self, table: Table, **columns: Any) -> None:
        """Put an entry into the job's chain."""
        values = {column.name: columns.get(column.name) for column in table.columns} | {"job_seq": self.number}
        entry = next_entry(self.head, table.name, entry_fields(values, self.job_id))  # type: ignore[arg-type]
        self.rows.append((table, values | {"prev_hash": entry.prev_hash, "hash": entry.hash}))
        self.head = entry.hash


def _batches(seed: int, count: int) -> Iterator[dict[Table, list[dict[str, Any]]]]:
    for first in range(1, count + 1, ROWS):
        batch: dict[Table, list[dict[str, Any]]] = {table: [] for table in (jobs, runs, events, approvals)}
        for number in range(first, min(first + ROWS, count + 1)):
            for table, row in _Job(seed, number).rows:
                batch[table].append(row)
        yield batch


def fill(store: Store, count: int, seed: int = 1) -> None:
    """Put so many letters into an empty store: 51 % of them corrected, 1.5 corrections a letter, 73 % approved."""
    for batch in _batches(seed, count):
        with writing(store.engine) as connection:
            for table, rows in batch.items():
                if rows:
                    connection.execute(table.insert(), rows)
