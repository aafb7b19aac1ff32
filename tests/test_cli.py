"""The command line: parameters become flags, errors become exit codes, and both doors lead to the same place."""

from __future__ import annotations

import errno
import inspect
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from fastcore.docments import docments
from hypothesis import given
from hypothesis import strategies as st

import ocr_sprint
from ocr_sprint.core.errors import DataError, FlaggedError, UsageError
from ocr_sprint.tools import cli
from ocr_sprint.tools.cli import COMMANDS, command, load
from ocr_sprint.tools.completion import completion, everything

given_values: dict[str, Any] = {}


def export(
    paths: Sequence[Path],  # files or folders
    *,
    token: str,  # 100 % of the time needed
    out: Path = Path("corpus.jsonl"),  # where to write
    approved_only: bool = True,  # approved letters, or all
    has_corrections: bool | None = None,  # only letters with, or only without corrections
    since: datetime | None = None,  # changed at or after
    limit: int | None = None,  # stop after this many
    ratio: float = 0.8,  # share for training
    kind: Literal["pdf", "png"] = "pdf",  # of scan
    models: Sequence[str] = (),  # aliases
    print_stats: bool = False,  # counts on the standard error
) -> int | None:
    """Export something.

    With more to say about it."""
    given_values.update(locals())
    return None


WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1)
OPTIONS = st.fixed_dictionaries(
    {"token": WORDS},
    optional={
        "out": WORDS.map(Path),
        "approved_only": st.booleans(),
        "has_corrections": st.booleans(),
        "since": st.datetimes(timezones=st.just(UTC)),
        "limit": st.integers(),
        "ratio": st.floats(allow_nan=False),
        "kind": st.sampled_from(["pdf", "png"]),
        "models": st.lists(WORDS, min_size=1),
        "print_stats": st.booleans(),
    },
)


def words(options: dict[str, Any]) -> list[str]:
    """The command line that says the same."""
    line: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            line.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            line += [word for each in value for word in (f"--{flag}", each)]
        else:
            line.append(f"--{flag}={value.isoformat() if isinstance(value, datetime) else value}")
    return line


@given(st.lists(WORDS, min_size=1), OPTIONS)
def test_the_function_gets_exactly_what_was_written(paths: list[str], options: dict[str, Any]) -> None:
    given_values.clear()
    defaults = {n: p.default for n, p in inspect.signature(export).parameters.items() if p.default is not p.empty}
    assert command(export)([*paths, *words(options)]) == 0
    assert given_values == {**defaults, **options, "paths": [Path(path) for path in paths]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "required: paths, --token"),
        ("a --token x --print_stats", "unrecognized arguments: --print_stats"),
        ("a --token x --lim 3", "unrecognized arguments: --lim 3"),
        ("a --token x --limit three", "--limit: invalid int value: 'three'"),
        ("a --token x --kind gif", "--kind: invalid choice: 'gif'"),
        ("a --token x --since yesterday", "'yesterday' is not a time such as 2025-06-01T10:15:00Z"),
    ],
)
def test_a_wrong_call_exits_with_2_and_names_the_flag(
    line: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(export)(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err
    assert err.splitlines()[-1].startswith("ocr_sprint export: error: ")


def test_help_shows_docstring_notes_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(export)(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "usage: ocr_sprint export",
        "Export something. With more to say about it.",
        "--token TEXT 100 % of the time needed",
        "--out PATH where to write (default: corpus.jsonl)",
        "--approved-only, --no-approved-only approved letters, or all (default: yes)",
        "--has-corrections, --no-has-corrections only letters with, or only without corrections --since",
        "--ratio X share for training (default: 0.8)",
        "--kind {pdf,png} of scan (default: pdf)",
        "--print-stats, --no-print-stats counts on the standard error",
    ):
        assert part in shown


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("a.pdf: broken"), 1), (UsageError("a.pdf: broken"), 2), (FlaggedError("a.pdf: broken"), 3)],
)
def test_what_users_can_mend_is_one_line(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def inspect_letter() -> int | None:
        """Look at a letter."""
        raise error

    assert command(inspect_letter)([]) == code
    assert capsys.readouterr() == ("", "ocr_sprint inspect_letter: a.pdf: broken\n")


def test_a_returned_number_is_the_exit_code() -> None:
    def three() -> int | None:
        """Return 3."""
        return 3

    assert command(three)([]) == 3


UNEXPECTED = [
    ZeroDivisionError(),
    OSError("no number"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "a.pdf"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    PermissionError(errno.EPERM, "Operation not permitted"),  # of a signal or a socket: there is no file
]


@pytest.mark.parametrize("error", UNEXPECTED, ids=repr)
def test_an_unexpected_error_keeps_its_traceback(error: Exception) -> None:
    def bug() -> int | None:
        """Fail."""
        raise error

    with pytest.raises(type(error)):
        command(bug)([])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_disk_that_refuses_is_one_line_with_the_file(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def write_letter() -> int | None:
        """Fail."""
        raise OSError(number, os.strerror(number), "corpus.jsonl")

    assert command(write_letter)([]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"ocr_sprint write_letter: corpus.jsonl: {os.strerror(number)}; ")
    assert (out, len(err.splitlines())) == ("", 1)


@pytest.mark.parametrize("line", [["--help"], ["completion", "bash"]], ids=" ".join)
def test_output_into_a_full_disk_is_one_line(line: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "ocr_sprint.tools.cli", *line]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"{' '.join(['ocr_sprint', *line[:-1]])}: standard output or a temporary file: No space left on device;"
        " free space there, or name another place"
    ]


SCRIPT = """
from __future__ import annotations
import os, sys, time
from ocr_sprint.tools.cli import command

def chatter() -> int | None:
    "Print many lines."
    for number in range(1_000_000):
        print(number)
    return None

def sleeper() -> int | None:
    "Wait."
    print("ready", flush=True)
    time.sleep(60)
    return None

def broken() -> int | None:
    "Meet a broken pipe that is not the standard output."
    reader, writer = os.pipe()
    os.close(reader)
    os.write(writer, b"x")
    return None

raise SystemExit(command(globals()[sys.argv[1]])(sys.argv[2:]))
"""


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return [sys.executable, str(path)]


def test_a_reader_that_has_seen_enough_is_no_failure(script: list[str]) -> None:
    process = subprocess.Popen([*script, "chatter"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as err:
        assert err.read() == b""
    assert process.wait(30) == 0


def test_help_into_a_closed_pipe_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "ocr_sprint.tools.cli", "--help"], stdout=out, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_another_broken_pipe_is_a_failure_with_a_traceback(script: list[str]) -> None:
    done = subprocess.run([*script, "broken"], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"BrokenPipeError" in done.stderr


def test_ctrl_c_exits_with_130_and_one_line(script: list[str]) -> None:
    process = subprocess.Popen([*script, "sleeper"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == b"ocr_sprint sleeper: interrupted\n"
    assert process.returncode == 130


def test_every_command_has_its_docstrings_first_line_and_notes() -> None:
    for name, line in COMMANDS.items():
        function = load(name)
        assert (inspect.getdoc(function) or "").splitlines()[0] == line
        notes = docments(function)
        assert [parameter for parameter in inspect.signature(function).parameters if not notes[parameter]] == []


def test_every_command_says_the_same_of_the_store() -> None:
    said = {docments(load(name)).get("store") for name in COMMANDS} - {None}
    assert said == {"store's URL; else $OCR_SPRINT_STORE, else sqlite:///ocr_sprint.db"}


def run(*line: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run([sys.executable, *line], capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "--no-such-flag"])
def test_both_doors_lead_to_the_same_place(name: str, flag: str) -> None:
    by_module = run("-m", f"ocr_sprint.tools.{name}", flag)
    by_name = run("-m", "ocr_sprint.tools.cli", name, flag)
    assert by_module == by_name
    assert by_name[0] == (0 if flag == "--help" else 2)


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, line in COMMANDS.items():
        assert f"  {name} " in shown
        assert line in shown
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ocr_sprint {ocr_sprint.__version__}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "usage: ocr_sprint COMMAND"),
        (["completoin"], "ocr_sprint: no command 'completoin'; did you mean completion?\n"),
        (["--verbose"], "ocr_sprint: no command '--verbose'; ocr_sprint --help lists the commands\n"),
    ],
)
def test_an_unknown_command_exits_with_2(line: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)


def test_the_overview_imports_nothing_heavy() -> None:
    heavy = {"numpy", "pandas", "PIL", "pydantic", "sqlalchemy", "plotly", "orjson", "paddleocr", "dask", "tqdm"}
    script = "import sys; from ocr_sprint.tools.cli import main; main(['--help']); sys.exit(' '.join(sys.modules))"
    assert heavy & set(run("-c", script)[2].decode().split()) == set()


def test_the_overview_appears_at_once() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("-m", "ocr_sprint.tools.cli", "--help")[0] == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.7  # CPU, which a busy machine does not stretch


def complete(script: str, *typed: str) -> set[str]:
    """What bash offers after these words."""
    line = f"COMP_WORDS=({' '.join(typed)} ''); COMP_CWORD={len(typed)}; COMP_LINE='x'; COMP_POINT=1; COMP_TYPE=9"
    shell = f'complete() {{ :; }}\n{script}\n{line}\n_shtab_ocr_sprint 2>/dev/null; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def test_bash_completes_every_command_and_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert completion("bash") is None
    script = capsys.readouterr().out
    assert set(COMMANDS) <= complete(script, "ocr_sprint")
    assert {"bash", "zsh"} <= complete(script, "ocr_sprint", "completion")
    for name in COMMANDS:
        flags = everything()._subparsers._group_actions[0].choices[name]._option_string_actions  # type: ignore
        prefix = f"_shtab_ocr_sprint_{name}_option_strings=("
        [line] = [line for line in script.splitlines() if line.startswith(prefix)]
        assert set(flags) == set(line.removeprefix(prefix).rstrip(")").replace("'", "").split())


def test_zsh_knows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert completion("zsh") is None
    script = capsys.readouterr().out
    assert script.startswith("#compdef ocr_sprint")
    assert all(f"    {name}:'" in script for name in COMMANDS)


BROKEN = """
import sys
sys.modules["ocr_sprint.tools.verify"] = None  # what Python takes for a module that is not there
from ocr_sprint.tools.cli import main
raise SystemExit(main(sys.argv[1:]))
"""
ABSENT = "ocr_sprint.tools.verify cannot be imported (import of ocr_sprint.tools.verify halted; None in sys.modules)"


def test_a_tool_that_is_not_there_takes_no_other_with_it() -> None:
    again = "install ocr_sprint again, with its extras\n"
    assert run("-c", BROKEN, "verify", "--help") == (1, b"", f"ocr_sprint verify: {ABSENT}; {again}".encode())
    assert run("-c", BROKEN, "diff", "--help") == run("-m", "ocr_sprint.tools.cli", "diff", "--help")
    assert run("-c", BROKEN, "--help") == run("-m", "ocr_sprint.tools.cli", "--help")
    code, script, said = run("-c", BROKEN, "completion", "bash")
    assert (code, said.decode()) == (0, f"ocr_sprint completion: left out verify: {ABSENT}; {again}")
    assert complete(script.decode(), "ocr_sprint") >= set(COMMANDS) - {"verify"}


def test_every_command_is_in_the_repository() -> None:
    root = Path(__file__).parent.parent
    done = subprocess.run(["git", "ls-files", "ocr_sprint/tools"], cwd=root, capture_output=True, text=True, check=True)
    assert {f"ocr_sprint/tools/{name}.py" for name in COMMANDS} <= set(done.stdout.split())
