"""What worker processes of test_queue import: readers that take their time, and can be killed at any moment."""

from __future__ import annotations

import time
from typing import Any

from ocr_sprint.review.queue import Task, claim, finish
from ocr_sprint.review.store import open_store


def read(task: Task) -> dict[str, Any]:
    """What a pipeline might say of a document."""
    return {
        "filename": task.filename,
        "source_kind": "pdf",
        "document_sha256": task.document_sha256,
        "pages": 1,
        "engine": f"{task.worker}, attempt {task.attempt}",
        "result": {"header": {"perihal": task.content.decode("latin-1")}},
        "confidence": 0.9,
        "field_confidence": {},
        "evidence": None,
        "review_flags": [],
        "ocr_text": None,
        "error": None,
    }


def drain(url: str, worker: str, lease: float = 600, nap: float = 0.0) -> list[str]:
    """Claim and finish until nothing waits; the jobs that were kept."""
    kept = []
    with open_store(url, create=False) as store:
        while task := claim(store, worker, lease):
            time.sleep(nap)
            if finish(store, task, **read(task)):
                kept.append(task.job_id)
    return kept
