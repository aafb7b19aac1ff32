"""`ocr_sprint jobs`: letters by state as the board has them, and failed ones put back."""

import json

import pytest
from review_samples import new_job

from ocr_sprint.core.canonical import sha256_hex
from ocr_sprint.documents.pipeline import Ingested
from ocr_sprint.panels.board import advice
from ocr_sprint.review.progress import throughput
from ocr_sprint.review.store import open_store
from ocr_sprint.tools.ingest import main as ingest
from ocr_sprint.tools.jobs import main

CRASH, NOISE = "given up after 3 attempts", "the page is noise; scan it at 300 dpi"


@pytest.fixture
def letters(url):
    """A read letter, an approved one, and three that failed: by a crash, by noise, and by a crash without a file."""
    with open_store(url) as store:
        ids = [store.add_job(**new_job(number)) for number in (1, 2)]
        store.approve(ids[1], by="reviewer-a")
        for number, reason in ((3, CRASH), (4, NOISE)):
            content = b"%%PDF-1.7 %d" % number
            failed = {"result": None, "error": reason, "document_sha256": sha256_hex(content), "review_flags": []}
            ids.append(store.add_job(document=content, **new_job(number) | failed))
        ids.append(store.add_job(**new_job(5, error=CRASH, review_flags=[]) | {"result": None}))
    return ids


def test_states_flags_and_reasons_are_told(url, letters, capsys):
    assert main(["--store", url]) == 0
    said = capsys.readouterr()
    rows = {line.split("\t")[1]: line.split("\t") for line in said.out.splitlines()}
    assert rows[letters[0]] == ["needs review", letters[0], "sprint-001.pdf", "llm_fallback"]
    assert rows[letters[1]][0] == "approved"
    assert rows[letters[3]] == ["failed", letters[3], "sprint-004.pdf", f"{NOISE}; {advice(NOISE).text}"]
    assert said.err == "0 queued, 0 running, 3 failed, 1 need review, 1 approved\n"
    for state, expected in (("failed", letters[2:]), ("needs-review", letters[:1]), ("done", letters[:2])):
        assert main(["--state", state, "--json", "--store", url]) == 0
        assert {json.loads(line)["job_id"] for line in capsys.readouterr().out.splitlines()} == set(expected)


def test_only_what_may_succeed_is_put_back(url, letters, capsys):
    assert main(["--retry", "--store", url]) == 1, "one has no file"
    said = capsys.readouterr()
    assert said.out == f"queued\t{letters[2]}\tsprint-003.pdf\n"
    assert said.err.splitlines()[0].startswith("sprint-005.pdf: ")
    assert said.err.splitlines()[1].startswith("1 put back for `ocr_sprint worker` or `serve` to read; 1 left")
    with open_store(url) as store:
        assert [store.job(job_id).status for job_id in letters[2:]] == ["queued", "failed", "failed"]


def test_a_letter_that_failed_again_is_counted_once(url):
    with open_store(url) as store:
        for _ in range(3):
            store.add_job(rerun=True, **new_job(1, error=CRASH, review_flags=[]) | {"result": None})
        (slot,) = throughput(store, "month").slots
        assert (slot.read, slot.failed, slot.pages) == (0, 1, 1)
        store.add_job(rerun=True, **new_job(1))
        (slot,) = throughput(store, "month").slots
        assert (slot.read, slot.failed) == (1, 0)


def test_an_interrupted_ingest_says_how_far_it_came_and_names_flags(tmp_path, monkeypatch, capsys):
    def broken_off(documents, *_, **__):
        yield Ingested(documents[0], "1", known=False, error=None, review_flags=("nrp_format@personel[0].nrp",))
        raise KeyboardInterrupt

    monkeypatch.setattr("ocr_sprint.documents.pipeline.ingest", broken_off)
    (tmp_path / "a.pdf").touch()
    assert ingest([str(tmp_path / "a.pdf"), "--store", f"sqlite:///{tmp_path}/store.db"]) == 130
    said = capsys.readouterr()
    assert said.out == f"done\t1\t{tmp_path}/a.pdf\tnrp_format@personel[0].nrp\n"
    assert said.err.splitlines()[0].startswith("1 done, 1 flagged, 0 known, 0 failed of 1; the same command goes on")


def test_a_list_of_many_pages_is_whole_and_wrong_calls_make_nothing(new_url, tmp_path, capsys):
    url = new_url("sqlite")
    with open_store(url) as store:
        ids = {store.add_job(**new_job(number)) for number in range(60)}
    assert main(["--store", url]) == 0
    assert {line.split("\t")[1] for line in capsys.readouterr().out.splitlines()} == ids
    assert main(["--retry", "--state", "approved", "--store", url]) == 2
    assert main(["--store", f"sqlite:///{tmp_path}/typo.db"]) == 2
    assert not (tmp_path / "typo.db").exists()
