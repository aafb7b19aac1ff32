"""What workers import: a reader that one document kills."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ocr_sprint.documents.ocr import EngineName
from ocr_sprint.documents.pipeline import Processed, process

TESSERACT_TABLE = [
    "level page_num block_num par_num line_num word_num left top width height conf text",
    "5 1 1 1 1 1 10 10 90 20 96.5 SURAT",
    "5 1 1 1 1 2 110 12 140 20 91 PERINTAH",
    "5 1 1 1 1 3 400 10 40 20 80 KET",
]
FAKE_TESSERACT = f"""#!/bin/sh
case "$1" in
--version) echo "tesseract 9.9.9" ;;
--list-langs) printf 'List of available languages (1):\\nind\\n' ;;
*) tr ' ' '\\t' > "$2.tsv" <<END
{chr(10).join(TESSERACT_TABLE)}
END
esac
"""


def process_or_die(path: Path, name: EngineName = "paddle") -> Processed:
    if path.name == "killer.pdf":
        os.kill(os.getpid(), signal.SIGKILL)
    return process(path, name)


def process_or_fail(path: Path, name: EngineName = "paddle") -> Processed:
    raise RuntimeError(f"{name} stumbles over\n{path.name}")
