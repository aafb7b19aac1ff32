"""A store of fictitious letters, reviewed as people review them, for the tests of conversion and of training."""

import copy

from ocr_sprint.core.canonical import Json, sha256_hex
from ocr_sprint.documents.fiction import fictitious
from ocr_sprint.documents.letter import parse_result, result_data
from ocr_sprint.review.edits import Edit
from ocr_sprint.review.store import Store


def text_of(result: Json) -> str:
    """What OCR may read of a letter with this result."""
    header = result["header"]
    people = "\n".join(f"{row['no']}. {row['nama']} {row['pangkat']} NRP {row['nrp']}" for row in result["personel"])
    kop = "\n".join(result["satuan"]["kop"])
    return f"{kop}\n{header['jenis']}\nNomor: {header['nomor_sprint']}\n{result['pertimbangan']}\n{people}"


def in_schema_order(result: Json) -> Json:
    """The shape that the command uses."""
    return result_data(parse_result(result))


def add_letter(
    store: Store,
    seed: int,
    *,
    spoiled: bool = False,  # the pipeline missed the subject and misread a number
    approved: bool = True,
    **others: Json,
) -> str:
    """One letter; a spoiled one is corrected to its truth."""
    truth = result_data(fictitious(seed))
    result = copy.deepcopy(truth)
    if spoiled:
        result["header"]["perihal"] = None
        result["personel"][0]["nrp"] = "7706OOOO"
    job = {
        "filename": f"sprint-{seed:03}.pdf",
        "source_kind": "pdf",
        "document_sha256": sha256_hex(f"letter {seed}".encode()),
        "pages": 1,
        "engine": "paddle",
        "result": result,
        "confidence": 0.78,
        "field_confidence": {},
        "evidence": None,
        "review_flags": [],
        "ocr_text": text_of(truth),
        "error": None,
    }
    job_id = store.add_job(**{**job, **others})
    if spoiled:
        edits = [
            Edit("set", "header.perihal", truth["header"]["perihal"]),
            Edit("set", "personel[0].nrp", truth["personel"][0]["nrp"]),
        ]
        store.correct(job_id, edits, by="reviewer-a")
    if approved:
        store.approve(job_id, by="reviewer-a")
    return job_id


def fill(store: Store, letters: int = 20) -> list[str]:
    """Approved letters, every second one corrected."""
    return [add_letter(store, seed, spoiled=seed % 2 == 1) for seed in range(letters)]
