"""Filter packages: what is shipped, what is refused, and arithmetic that agrees with a second way to compute it."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ocr_sprint.core.errors import DataError, UsageError
from ocr_sprint.ground_truth.filters import SHIPPED, Config, judge, load_filter, one_type, reply_schema
from ocr_sprint.ground_truth.prompts import fill, lint_prompt, reordered, split_prompt
from ocr_sprint.tools.lint_filter import main

PACKAGES = sorted(path.parent for path in SHIPPED.glob("*/*/config.yaml"))
UPLIFTING = load_filter(Path("filters/uplifting/v1")).config
PLAIN: dict[str, Any] = {
    "filter": {"name": "clarity", "version": 1},
    "dimensions": {"words": {"weight": 0.5}, "order": {"weight": 0.5}},
    "tiers": [{"name": "clear", "at_least": 7}, {"name": "fair", "at_least": 4}, {"name": "unclear"}],
}


def write_package(folder: Path, config: dict[str, Any] | str, prompt: str | None = "Score.\n\n{{content}}\n") -> Path:
    folder.mkdir(parents=True)
    text = config if isinstance(config, str) else yaml.safe_dump(config)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    if prompt is not None:
        (folder / "prompt.md").write_text(prompt, encoding="utf-8")
    return folder


def changed(path: str, value: object) -> dict[str, Any]:
    "PLAIN with one key set to another value; the path is in dots, and numbers are places in a list."
    config = copy.deepcopy(PLAIN)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = config
    for parent in parents:
        place = place.setdefault(parent, {}) if isinstance(place, dict) else place[parent]
    place[last] = value
    return config


def test_two_filters_are_shipped() -> None:
    assert [str(path.relative_to(SHIPPED)) for path in PACKAGES] == ["letter_quality/v1", "uplifting/v1"]


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.parent.name)
def test_a_shipped_filter_is_one_that_we_would_advise(folder: Path) -> None:
    package = load_filter(folder)
    report = lint_prompt(package.prompt, "prompt.md")
    assert report.reordered is None
    assert report.beginning / report.fixed > 0.9
    assert all(name in package.prompt for name in (*package.config.dimensions, *package.config.content_types))
    assert all(dimension.description for dimension in package.config.dimensions.values())


def test_the_shipped_filters_are_found_from_any_folder(tmp_path: Path) -> None:
    code = "from pathlib import Path; from ocr_sprint.ground_truth.filters import load_filter as f;"
    code += "print(f(Path('filters/uplifting/v1')).name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "uplifting/v1\n"


def test_a_filter_in_the_working_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = load_filter(Path("filters/uplifting/v1"))
    config = changed("filter.name", "uplifting")
    write_package(tmp_path / "filters/uplifting/v1", config, "Mine.\n\n{{content}}")
    own = load_filter(Path("filters/uplifting/v1"))
    assert own.prompt_sha256 != shipped.prompt_sha256
    assert own.prompt.startswith("Mine.")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("filter.name", "No Spaces", "filter.name: String should match"),
        ("filter.version", 0, "filter.version: Input should be greater than or equal to 1"),
        ("dimensions", {}, "dimensions: Dictionary should have at least 1 item"),
        ("dimensions.words.weight", 0.4, "the weights of the dimensions sum to 0.9, not 1"),
        ("dimensions.words.weight", -0.5, "dimensions.words.weight: Input should be greater than or equal to 0"),
        ("dimensions.words.wieght", 0.5, "dimensions.words.wieght: Extra inputs are not permitted"),
        ("dimensions.reasoning", {"weight": 0}, "reasoning and content_type are parts of every reply"),
        ("scale", {"minimum": 10, "maximum": 1}, "scale: minimum 10 is not below maximum 1"),
        ("tiers", [], "tiers: Tuple should have at least 1 item"),
        ("tiers.2.at_least", 1, "the last tier, unclear, takes the rest"),
        ("tiers.1.at_least", 8, "tiers stand from the highest down"),
        ("tiers.1.at_least", 7, "tiers stand from the highest down"),
        ("tiers.1.at_least", None, "tiers stand from the highest down"),
        ("caps", [{"name": "a", "at_most": 1, "content_type": "b"}], "a speaks of 'b', which is not in content_types"),
        ("gatekeepers", [{"name": "a", "at_most": 1, "unless": {"b": {"below": 1}}}], "speaks of 'b', which is no dim"),
        ("caps", [{"name": "a"}], "caps.0.at_most: Field required"),
        ("pirce", 1, "pirce: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_config_is_one_line_with_file_and_key(tmp_path: Path, path: str, value: object, message: str) -> None:
    folder = write_package(tmp_path / "clarity", changed(path, value))
    with pytest.raises(DataError) as caught:
        load_filter(folder)
    assert str(caught.value).startswith(f"{folder / 'config.yaml'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("filter: [", "config.yaml, line"),
        ("- a\n- b\n", "config.yaml: the file: Input should be"),
        ("dimensions:\n  words: {weight: 1}\n  words: {weight: 0.5}\n", "the key 'words' occurs twice; keep one"),
        ("? [a, b]\n: 1\n", "config.yaml"),
        ("filter: !!python/object/apply:os.getcwd []\n", "config.yaml, line 1: "),
    ],
)
def test_what_is_no_config_at_all(tmp_path: Path, config: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        load_filter(write_package(tmp_path / "clarity", config))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [(None, "neither prompt-compressed.md nor prompt.md"), (" \n", "prompt.md: is empty")],
)
def test_a_package_without_a_prompt(tmp_path: Path, prompt: str | None, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        load_filter(write_package(tmp_path / "clarity", PLAIN, prompt))


def test_the_compressed_prompt_comes_first(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "clarity", PLAIN)
    (folder / "prompt-compressed.md").write_text("Short. {{content}}", encoding="utf-8")
    assert load_filter(folder).prompt_file == "prompt-compressed.md"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "clarity", PLAIN)
    (folder / "config.yaml").write_bytes(b"filter: \xff\n")
    with pytest.raises(DataError, match=r"config\.yaml: is not UTF-8 text"):
        load_filter(folder)


@pytest.mark.parametrize("name", ["filters/nothing/v1", "", "/nowhere/uplifting/v1", "filters/uplifting"])
def test_a_folder_that_is_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, DataError)):
        load_filter(Path(name))


@given(
    scores=st.fixed_dictionaries({name: st.integers(0, 10) for name in UPLIFTING.dimensions}),
    kind=st.sampled_from([None, "other", "solutions_story", "business_news", "corporate_finance", "military_security"]),
)
def test_the_verdict_is_what_a_second_way_of_computing_it_says(scores: dict[str, int], kind: str | None) -> None:
    weights = {"agency": 14, "progress": 19, "collective_benefit": 38, "connection": 10}
    weights |= {"innovation": 8, "justice": 4, "resilience": 2, "wonder": 5}
    overall = Fraction(sum(weights[name] * score for name, score in scores.items()), 100)
    benefit, wonder = scores["collective_benefit"], scores["wonder"]
    if benefit < 5 and (wonder < 7 or benefit < 3):
        overall = min(overall, Fraction(3))
    if kind == "business_news" and benefit < 6:
        overall = min(overall, Fraction(4))
    overall = min(overall, Fraction({"corporate_finance": 2, "military_security": 4}.get(str(kind), 10)))
    verdict = judge(UPLIFTING, scores, kind)
    assert verdict.overall == float(overall)
    assert verdict.tier == ("impact" if overall >= 7 else "connection" if overall >= 4 else "not_uplifting")
    assert bool(verdict.held_by) == (verdict.overall < verdict.weighted)


def test_thresholds_are_those_in_force() -> None:
    stricter = UPLIFTING.model_copy(update={"tiers": (UPLIFTING.tiers[0].model_copy(update={"at_least": 8.0}),
                                                      *UPLIFTING.tiers[1:])})  # fmt: skip
    sevens = dict.fromkeys(UPLIFTING.dimensions, 7)
    assert (judge(UPLIFTING, sevens).tier, judge(stricter, sevens).tier) == ("impact", "connection")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("news", "news"), (["news"], "news"), (["news", "other"], None), ([], None), (None, None), (3, None), ([3], None)],
)
def test_content_types_come_in_many_forms(answer: Any, kind: str | None) -> None:
    assert one_type(answer) == kind


def test_the_schema_takes_what_the_scale_takes() -> None:
    config = Config.model_validate(PLAIN | {"scale": {"minimum": 1, "maximum": 5, "integers": False}})
    schema = reply_schema(config)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"reasoning": "", "words": 1.5, "order": 5}, schema)
    for wrong in ({"reasoning": "", "words": 0.9, "order": 5}, {"reasoning": "", "words": 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


LINES = st.lists(
    st.sampled_from(["# Task", "Score it.", "", "{{content}}", "Title: {{title}}", "```", '{"a": 1}', "- one"]),
    max_size=12,
).map("\n".join)


@given(LINES)
def test_reordering_moves_lines_and_neither_adds_nor_loses_one(prompt: str) -> None:
    after = reordered(prompt)
    assert Counter(filter(str.strip, after.split("\n"))) == Counter(filter(str.strip, prompt.split("\n")))
    assert reordered(after) == after


@given(st.text(), st.text())
def test_no_text_can_reach_beyond_its_place(title: str, content: str) -> None:
    template = split_prompt("Score.\n<<{{title}}>>\n[[{{content}}]]", "prompt.md")
    if content.strip():
        assert fill(template, {"title": title, "content": content}) == f"<<{title}>>\n[[{content}]]"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filters/uplifting/v1", "--json", "--strict"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["advice"] == []
    assert told["cacheable_share"] > 0.9
    wrong = write_package(tmp_path / "clarity", changed("dimensions.words.weight", 1))
    assert main([str(wrong)]) == 1
    assert main([str(tmp_path / "none")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(":")[0] for line in said.err.splitlines()] == ["ocr_sprint lint_filter"] * 2
