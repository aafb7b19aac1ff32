"""Build the package as it would be published, install it beside nothing but its requirements, and look at it.

A file that the repository has and the wheel lacks goes unnoticed in the editable install that everybody works in.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent.parent
INSTALLED_HERE = "import sys, ocr_sprint; assert ocr_sprint.__file__.startswith(sys.prefix), ocr_sprint.__file__"


def run(*command: str | Path) -> None:
    """Run a command away from the repository, so that it cannot find the package there by accident."""
    subprocess.run(command, cwd=tempfile.gettempdir(), check=True, stdin=subprocess.DEVNULL)


def tracked_files() -> set[str]:
    """Everything that the repository keeps in the package's folder."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "ocr_sprint"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(listing.stdout.split("\0")) - {""}


def difference(packed: Iterable[str], tracked: Iterable[str]) -> list[str]:
    """One line for each file that only the repository or only the wheel has."""
    inside = {name for name in packed if name.startswith("ocr_sprint/")}
    missing = [f"{name}: not in the wheel; see MANIFEST.in" for name in sorted(set(tracked) - inside)]
    return missing + [f"{name}: in the wheel, but not in the repository" for name in sorted(inside - set(tracked))]


def main() -> int:
    """Build sdist and wheel, compare the wheel with the repository, install it and run its command."""
    with tempfile.TemporaryDirectory(prefix="package_") as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        problems = difference(ZipFile(wheel).namelist(), tracked_files())
        for problem in problems:
            print(f"package: {problem}", file=sys.stderr)
        if problems:
            return 1
        run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
        python = folder / "env" / "bin" / "python"
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
        run(*pip, "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
        run(python, "-c", INSTALLED_HERE)
        run(python.with_name("ocr_sprint"), "--help")
    print(f"package: {wheel.name} holds every file of the package, and its command runs on the base requirements alone")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
