"""The labeller against a provider on loopback: plans, keys, quarantine, shards, and journals that were damaged."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from label_samples import Serve, corpus, ids, order, run

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.core.llm_protocol import Parameters
from ocr_sprint.ground_truth.label_decide import MOST_KEPT
from ocr_sprint.ground_truth.label_journal import Journal, read_state
from ocr_sprint.ground_truth.label_plan import Shard, journals
from ocr_sprint.ground_truth.label_run import Terms
from ocr_sprint.tools.batch_labeler import main as labeller_main

pytestmark = pytest.mark.usefixtures("fictitious_keys", "little_jitter")


def test_the_same_corpus_is_not_asked_about_twice(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    wanted = order(tmp_path, corpus(tmp_path, 60), server)
    first = run(wanted)
    again = run(wanted)
    assert (again.asked, server.mock.seen["answered"]) == (0, 60)
    assert again.written.sha256 == first.written.sha256
    corpus(tmp_path, 7, start=60)
    assert run(wanted).asked == 0, "the plan holds although the source grew"
    assert run(replace(wanted, refresh_plan=True)).asked == 7
    assert server.mock.seen["answered"] == 67


@pytest.mark.parametrize(
    "changes",
    [{"llm": "server:other"}, {"parameters": Parameters(temperature=0.5)}, {"with_schema": False}],
    ids=["model", "parameters", "schema"],
)
def test_what_decides_an_answer_is_asked_anew(tmp_path: Path, serve: Serve, changes: dict[str, Any]) -> None:
    wanted = order(tmp_path, corpus(tmp_path, 10), serve())
    run(wanted)
    assert run(replace(wanted, **changes)).asked == 10
    assert run(wanted).asked == 0


def test_poisoned_records_go_to_quarantine_with_the_raw_reply_and_can_be_asked_again(
    tmp_path: Path, serve: Serve
) -> None:
    def answer(prompt: str, schema: dict[str, Any]) -> str:
        from llm_mock import scores

        return "I would rather not." if re.search(r"well 1[0-4] ", prompt) else json.dumps(scores(prompt, schema))

    server = serve(answer=answer, finish=lambda prompt: "blocked" if "well 20 " in prompt else "stop")
    wanted = order(tmp_path, corpus(tmp_path, 40), server)
    done = run(wanted)
    assert done.written.labelled == 34
    assert done.written.refused == {"unreadable": 5, "blocked": 1}
    aside = (tmp_path / "labels/uplifting/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["text"] for line in aside} == {"I would rather not.", ""}
    assert run(wanted).asked == 0
    server.mock.settings.answer = None
    again = run(replace(wanted, retry_quarantined=True))
    assert (again.asked, again.written.labelled, dict(again.written.refused)) == (6, 39, {"blocked": 1})


@pytest.mark.parametrize(
    ("length", "reason", "kept", "left_out"),
    [(200_000, "unreadable", MOST_KEPT, 200_000 - MOST_KEPT), (2_000_000, "too long", 0, 0)],
)
def test_rubbish_from_a_server_is_kept_in_part_and_counted(
    tmp_path: Path, serve: Serve, length: int, reason: str, kept: int, left_out: int
) -> None:
    wanted = order(tmp_path, corpus(tmp_path, 3), serve(answer=lambda *_: "x" * length))
    done = run(wanted)
    assert dict(done.written.refused) == {reason: 3}
    folder = tmp_path / "labels/uplifting"
    aside = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(len(each["text"]), each["text_left_out"]) for each in aside] == [(kept, left_out)] * 3
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 6 * MOST_KEPT + 20_000
    assert run(wanted).asked == 0


def test_a_truncated_reply_is_never_repaired(tmp_path: Path, serve: Serve) -> None:
    server = serve(finish=lambda prompt: "length" if "well 3 " in prompt else "stop")
    wanted = order(tmp_path, corpus(tmp_path, 8), server)
    done = run(wanted)
    assert (done.written.labelled, dict(done.written.refused)) == (7, {"truncated": 1})
    assert "a-00003" not in ids(wanted)


def test_a_key_that_is_refused_stops_the_run_and_says_why(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    wanted = replace(order(tmp_path, corpus(tmp_path, 50), server), base_url=server.url + "/nowhere")
    done = run(wanted)
    assert (done.ending, done.detail) == ("fatal", "HTTP 404: 404: Not Found")


def test_a_server_that_is_not_there_does_not_eat_the_corpus(tmp_path: Path) -> None:
    source = corpus(tmp_path, 400)
    wanted = replace(order(tmp_path, source, None, terms=Terms(concurrency=8)), base_url="http://127.0.0.1:9/v1")
    done = run(wanted)
    assert (done.ending, done.written.missing) == ("unreachable", 400)


def test_shards_together_are_the_whole(tmp_path: Path, serve: Serve) -> None:
    server, source = serve(), corpus(tmp_path, 50)
    one = order(tmp_path, source, server, output_dir=tmp_path / "one")
    run(one)
    parts = order(tmp_path, source, server, output_dir=tmp_path / "parts")
    for number in (2, 4, 1, 3):
        done = run(replace(parts, shard=Shard(number, 4)))
    assert done.written.labelled == 50
    assert server.mock.seen["answered"] == 100
    assert ids(parts) == ids(one)
    state = read_state(journals(tmp_path / "parts/uplifting"))
    back = read_state(journals(tmp_path / "parts/uplifting")[::-1])
    assert [*state.answers] != [*back.answers]
    assert set(state.answers) == set(back.answers)


def test_two_runs_do_not_write_one_journal(tmp_path: Path, serve: Serve) -> None:
    wanted = order(tmp_path, corpus(tmp_path, 5), serve())
    with (
        Journal(tmp_path / "labels/uplifting/journal.jsonl"),
        pytest.raises(UsageError, match="another run is writing"),
    ):
        run(wanted)


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_torn_line_is_cut_off_and_asked_again(tmp_path: Path, serve: Serve, cut: int) -> None:
    server = serve()
    wanted = order(tmp_path, corpus(tmp_path, 6), server)
    run(wanted)
    journal = tmp_path / "labels/uplifting/journal.jsonl"
    os.truncate(journal, journal.stat().st_size - cut)
    done = run(wanted)
    assert (done.asked, done.written.labelled, server.mock.seen["answered"]) == (1, 6, 7)


def test_a_damaged_journal_is_named(tmp_path: Path, serve: Serve) -> None:
    wanted = order(tmp_path, corpus(tmp_path, 6), serve())
    run(wanted)
    journal = tmp_path / "labels/uplifting/journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'{"kind"', b'{"kin', 1))
    with pytest.raises(DataError, match=r"journal\.jsonl, line 1: is no entry of a journal"):
        run(wanted)


def _next_source(folder: Path, texts: dict[str, str]) -> str:
    path = folder / "next.jsonl"
    path.write_text("".join(json.dumps({"id": name, "content": text}) + "\n" for name, text in texts.items()))
    return str(path)


def test_another_source_into_the_same_folder_loses_no_label(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    first = order(tmp_path, corpus(tmp_path, 20), server)
    run(first)
    path = tmp_path / "labels/uplifting/labeled_articles.jsonl"
    before = path.read_bytes()
    follow = replace(first, source=[_next_source(tmp_path, {"n-1": "One more well.", "n-2": "Yet one."})])
    done = run(follow)
    assert (done.asked, done.written.labelled, done.written.kept, done.written.dropped) == (2, 2, 20, 0)
    assert path.read_bytes().startswith(before)
    assert ids(follow)[-2:] == ["n-1", "n-2"]
    both = path.read_bytes()
    assert run(follow).asked == 0
    assert path.read_bytes() == both, "the same sources give the same bytes"
    back = run(first)
    assert (back.asked, back.written.labelled, back.written.kept) == (0, 20, 2)
    assert sorted(path.read_bytes().splitlines()) == sorted(both.splitlines())
    summary = json.loads((path.parent / "summary.json").read_text(encoding="utf-8"))
    assert (summary["labelled"], summary["kept"], sum(summary["tiers"].values())) == (22, 2, 22)
    assert server.mock.seen["answered"] == 22


def test_a_smaller_target_and_another_sample_lose_no_label(tmp_path: Path, serve: Serve) -> None:
    wanted = order(tmp_path, corpus(tmp_path, 30), serve())
    run(wanted)
    done = run(replace(wanted, target=10, seed=7))
    assert (done.asked, done.written.labelled, done.written.kept) == (0, 10, 20)
    assert len(ids(wanted)) == 30


def test_labels_that_a_killed_run_did_not_write_are_there_after_another_source(tmp_path: Path, serve: Serve) -> None:
    first = order(tmp_path, corpus(tmp_path, 6), serve())
    run(first)
    (tmp_path / "labels/uplifting/labeled_articles.jsonl").unlink()
    done = run(replace(first, source=[_next_source(tmp_path, {"n-1": "One more well."})]))
    assert (done.asked, done.written.labelled, done.written.kept) == (1, 1, 6)


@pytest.mark.parametrize(
    ("texts", "changes", "message"),
    [
        ({"n-1": "One more."}, {"llm": "server:other"}, "another model or prompt (6, such as a-00000)"),
        ({"a-00003": "Another text."}, {}, "with other texts (1, such as a-00003)"),
    ],
    ids=["model", "same id"],
)
def test_an_order_that_would_lose_labels_sends_nothing(
    tmp_path: Path, serve: Serve, texts: dict[str, str], changes: dict[str, Any], message: str
) -> None:
    server = serve()
    first = order(tmp_path, corpus(tmp_path, 6), server)
    run(first)
    before = {path.name: path.read_bytes() for path in (tmp_path / "labels/uplifting").iterdir()}
    wanted = replace(first, source=[_next_source(tmp_path, texts)], **changes)
    with pytest.raises(UsageError, match=re.escape(message)):
        run(wanted)
    assert {path.name: path.read_bytes() for path in (tmp_path / "labels/uplifting").iterdir()} == before
    assert server.mock.seen["answered"] == 6
    if not changes:
        again = run(replace(wanted, refresh_plan=True))
        assert (again.asked, again.written.labelled, again.written.kept, again.written.dropped) == (1, 1, 5, 1)


def test_a_damaged_file_of_labels_is_named_and_not_written_over(tmp_path: Path, serve: Serve) -> None:
    first = order(tmp_path, corpus(tmp_path, 6), serve())
    run(first)
    path = tmp_path / "labels/uplifting/labeled_articles.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"labeled_articles.jsonl, line 6: .*restore the file, or move it away"):
        run(replace(first, source=[_next_source(tmp_path, {"n-1": "One more well."})]))


def test_the_last_line_tells_what_stays_of_earlier_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--filter", "filters/uplifting/v1", "--output-dir", str(tmp_path / "labels"), "--llm", "baseline"]
    assert labeller_main([*common, "--source", corpus(tmp_path, 8)]) == 0
    assert labeller_main([*common, "--source", _next_source(tmp_path, {"n-1": "One more well."})]) == 0
    assert "labelled 1, and 8 of earlier sources stay in the file (" in capsys.readouterr().err
