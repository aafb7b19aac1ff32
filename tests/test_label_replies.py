"""What models make of their JSON: read rightly, or asked about again."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from label_samples import CONFIG, Serve, corpus, labels, order, run

from ocr_sprint.ground_truth.label_reply import Analysis, read_reply
from ocr_sprint.ground_truth.label_run import Terms

pytestmark = pytest.mark.usefixtures("fictitious_keys", "little_jitter")


GOOD = {"reasoning": 'He said "ten", then \\ left.\nA line.', "content_type": "other"}
GOOD |= {name: number for number, name in enumerate(CONFIG.dimensions, start=1)}
TRUE = {name: number for number, name in enumerate(CONFIG.dimensions, start=1)}


def corrupted(chance: random.Random) -> str:
    "A reply with one of the faults that real replies have, or with an accident."
    text = json.dumps(GOOD)
    place = chance.randrange(len(text))
    match chance.randrange(12):
        case 0:
            return f"Sure!\n```json\n{text}\n```\nDone."
        case 1:
            return text.replace("left", "\\alpha \\epsilon \\d")
        case 2:
            return text.replace("\\n", "\n")
        case 3:
            return text[:-1] + ",}"
        case 4:
            return text[:place]
        case 5:
            return text[:place] + text[place + 1 :]
        case 6:
            return text[:place] + chance.choice('"{}[],:\\0123456789x ') + text[place:]
        case 7:
            return text + chance.choice(["}", " {", "\n" + text, "\n" + text.replace(": 3", ": 9")])
        case 8:
            return text.replace('"', "'")
        case 9:
            return json.dumps({**GOOD, chance.choice([*TRUE]): chance.choice([11, -1, "x", None, 3.5, True, [1]])})
        case 10:
            return json.dumps({"dimensions": TRUE, "reasoning": "", "content_type": None})
        case _:
            return json.dumps({name: part for name, part in GOOD.items() if name != chance.choice([*TRUE])})


def test_corrupted_replies_are_read_rightly_or_not_at_all() -> None:
    chance = random.Random(11)
    read = asked_again = 0
    for _ in range(3000):
        text = corrupted(chance)
        analysis = read_reply(CONFIG, text)
        if isinstance(analysis, Analysis):
            read += 1
            # A digit that changed inside of a number is valid JSON: no reader can see it.
            if analysis.scores != TRUE:
                changed = [name for name, score in analysis.scores.items() if score != TRUE[name]]
                assert len(changed) == 1
                assert re.search(rf'"{changed[0]}": {analysis.scores[changed[0]]}\b', text)
        else:
            asked_again += 1
            assert "\n" not in analysis
    assert read > 900
    assert read + asked_again == 3000


def with_value(good: dict[str, Any], name: str, written: str) -> str:
    "The reply with something else in the place of a score, whether or not it is JSON."
    return json.dumps({**good, name: "HERE"}).replace('"HERE"', written)


def of_each_score(good: dict[str, Any]) -> Iterator[str]:
    "Every score in turn: of the wrong type, off the scale, missing, named otherwise, and said twice."
    text = json.dumps(good)
    wrong = (
        "high",
        "7/10",
        "",
        "٧ or ٨",
        "1e3",
        None,
        True,
        [1],
        {},
        {"score": None},
        {"value": 3},
        11,
        -1,
        3.5,
        10**30,
    )
    for name in TRUE:
        yield from (json.dumps({**good, name: value}) for value in wrong)
        yield from (
            with_value(good, name, written)
            for written in ("NaN", "Infinity", "-Infinity", "1e999", "0x5", "5 // of 10")
        )
        yield from (text.replace(f'"{name}"', f'"{other}"') for other in (name.title(), name + "s", name[:-1], "id"))
        yield json.dumps({key: part for key, part in good.items() if key != name})
        yield from (f'{text[:-1]}, "{name}": {value}}}' for value in ((good[name] + 1) % 11, good[name]))
        other = {**{key: good[key] for key in TRUE}, name: (good[name] + 1) % 11}
        yield from (json.dumps({**good, home: other}) for home in ("dimensions", "scores", "other_analysis"))


def of_the_whole(good: dict[str, Any]) -> Iterator[str]:
    "Truncations, fences, text around it, other encodings, drafts, and what is no reply at all."
    text, draft = json.dumps(good), json.dumps({**good, "agency": (good["agency"] + 1) % 11})
    yield from (text[:end] for end in range(0, len(text), 4))
    yield from (f"{fence}\n{text}\n```" for fence in ("```", "```json", "Here you are:\n\n```JSON"))
    yield from (
        f"{before}{text}{after}"
        for before in ("", "\ufeff", "Sure! ", "{", "[")
        for after in ("", "}", "]", "\nDone. {0}")
    )
    yield from (
        f"<think>{draft}</think>{text}",
        f"{text}\n{draft}",
        f"{text}\n{text}",
        f"[{text}, {draft}]",
        f"[{text}]",
    )
    yield from (json.dumps({"result": good}), json.dumps(text), json.dumps({"uplifting_analysis": good}))
    yield from (json.dumps({**good, "content_type": kind}) for kind in (3, {}, [1], True, [], None, ["other"]))
    yield from (
        json.dumps({**good, "id": "another article's"}),
        json.dumps({"dimensions": {key: good[key] for key in TRUE}}),
    )
    yield from (text.replace('"', "'"), str(good), text.replace(": ", " "), text.replace(", ", " "), text[:-1] + ",}")
    yield from (
        text.replace("well", mess) for mess in ('the "well"', "the\nwell", "\\well", "\x00well", "\\u12well", "\\ud800")
    )
    yield from (
        "null",
        "[]",
        "{}",
        " ",
        "7",
        "I would rather not.",
        "<html>502 Bad Gateway</html>",
        text.encode().hex(),
    )


def test_systematic_faults_are_never_silently_wrong_and_end_as_the_right_labels(tmp_path: Path, serve: Serve) -> None:
    "Each article's first reply has a fault of its own; what is read must be true, all else is asked about again."

    def good(prompt: str) -> dict[str, Any]:
        chance = random.Random(re.findall(r"dug well (\d+)", prompt)[-1])
        return {"reasoning": "A well.", "content_type": "other"} | {name: chance.randrange(11) for name in TRUE}

    faults = [fault for make in (of_each_score, of_the_whole) for fault in make(good("dug well 0"))]
    asked: Counter[int] = Counter()

    def answer(prompt: str, _: dict[str, Any]) -> str:
        number = int(re.findall(r"dug well (\d+)", prompt)[-1])
        asked[number] += 1
        made = (fault for make in (of_each_score, of_the_whole) for fault in make(good(prompt)))
        return json.dumps(good(prompt)) if asked[number] > 1 else next(islice(made, number, None))

    wanted = order(tmp_path, corpus(tmp_path, len(faults)), serve(answer=answer), terms=Terms(16))
    done = run(wanted)
    assert len(faults) >= 300
    assert done.written.labelled == len(faults), "100 % recovered or asked about again"
    for line in labels(wanted):
        told = good(f"dug well {int(line['id'][2:])}")
        assert {name: line["uplifting_analysis"][name] for name in TRUE} == {name: told[name] for name in TRUE}, line[
            "id"
        ]
    assert sum(times == 1 for times in asked.values()) >= 25, "what can be read is not paid for again"
    assert max(asked.values()) == 2
