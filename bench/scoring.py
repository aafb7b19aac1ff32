"""Score what the pipeline reads on a fictitious letter against its truth."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path

from ocr_sprint.documents.letter import Personel, Result, fields, parse_result
from ocr_sprint.documents.pipeline import process
from ocr_sprint.documents.synthetic import Level, make_letter


def read_letter(letter: tuple[int, Level]) -> tuple[Counter[str], Counter[str], list[tuple[float, bool]]]:
    """Make a letter, read it, and count fields seen and right, with each field's confidence."""
    seed, level = letter
    made = make_letter(seed, level=level)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"letter{made.suffix}"
        path.write_bytes(made.data)
        done = process(path)
    return compare(made.truth, parse_result(done.result), done.field_confidence)


def align(truth: Result, found: Result, confidence: Mapping[str, float]) -> tuple[dict[str, float], Result]:
    """The found people in the places of the true ones, matched in order by number and name; the rest left out."""
    wanted, read = ([f"{person.nrp}" for person in people] for people in (truth.personel, found.personel))
    place: dict[int, int] = {}  # of the found in the truth
    for tag, a, b, c, d in SequenceMatcher(None, wanted, read, autojunk=False).get_opcodes():
        if tag in ("equal", "replace"):
            place.update(zip(range(c, d), range(a, b), strict=False))
    people = [Personel()] * len(truth.personel)
    for source, target in place.items():
        people[target] = found.personel[source]
    moved = {}
    for path, value in confidence.items():
        row = re.match(r"personel\[(\d+)\](.*)", path)
        if row and int(row[1]) in place:
            moved[f"personel[{place[int(row[1])]}]{row[2]}"] = value
        elif not row:
            moved[path] = value
    return moved, found.model_copy(update={"personel": tuple(people)})


def compare(
    truth: Result, found: Result, confidence: Mapping[str, float]
) -> tuple[Counter[str], Counter[str], list[tuple[float, bool]]]:
    """Exact matches by kind of field. A lost row is wrong in each of its fields, but does not shift the others."""
    seen: Counter[str] = Counter(letters=1)
    right: Counter[str] = Counter()
    right["letters"] = fields(truth) == fields(found)
    confidence, aligned = align(truth, found, confidence)
    wanted, read = fields(truth), fields(aligned)
    for path, value in wanted.items():
        kind = re.sub(r"\[\d+\]", "", path)
        seen[kind] += 1
        right[kind] += read.get(path) == value
    numbers = {person.nrp for person in found.personel}
    seen["rows"] += len(truth.personel)
    right["rows"] += sum(person.nrp in numbers for person in truth.personel)
    seen["rows invented"] += len(found.personel)
    right["rows invented"] += max(len(found.personel) - len(truth.personel), 0)
    judged = [(value, read.get(path) == wanted.get(path)) for path, value in confidence.items() if path in wanted]
    return seen, right, judged
