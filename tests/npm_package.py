"""Programs of other people from the npm registry, at the version and the hash of a lock file."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path

import pytest


def _locked(path: Path, package: str) -> object:
    """The hash of the package in a lock file; None without one."""
    if not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8"))["packages"].get(package, {}).get("integrity")


def install(folder: Path, name: str) -> Path:
    """Install what the lock file of a folder names, once for all processes that test; the folder of the package."""
    lock, package = folder / "package-lock.json", f"node_modules/{name}"
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # npm writes its own lock file into node_modules last: one that agrees is a whole installation.
        if _locked(folder / "node_modules/.package-lock.json", package) != _locked(lock, package):
            words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            try:
                done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                pytest.fail(f"{name} needs npm: apt-get install nodejs npm")
            if done.returncode:
                told = " ".join(done.stderr.split())[:300]
                pytest.fail(f"npm ci could not install {name}; is the npm registry there? {told}")
    return folder / package
