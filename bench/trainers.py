"""Whether Axolotl and Unsloth themselves take a folder of `ocr_sprint convert`; --help says how to ask them.

    python bench/trainers.py --folder training --model tiny --packages unpacked/axolotl unpacked/unsloth

Their wheels are pure Python, but they want other versions of transformers and TRL than we do, so that they stand in
no extra and in no gate. They need an environment of their own, with Axolotl's pins:

    python -m venv peers
    peers/bin/pip install torch transformers==5.16.1 trl==1.9.0 peft==0.20.0 datasets==4.8.4 accelerate==1.13.0 \\
        'huggingface-hub<2' addict colorama python-dotenv fire posthog art einops numba httpcore schedulefree \\
        bitsandbytes evaluate wandb axolotl-contribs-lgpl axolotl-contribs-mit tyro sentencepiece protobuf pyyaml
    pip download --no-deps axolotl==0.19.0 unsloth==2026.10.9 unsloth_zoo==2026.10.9    # unpack each into a folder
    peers/bin/python bench/trainers.py ...

Axolotl's own schema reads axolotl.yml, where a key that it does not know is a failure. With a model's folder
(`python tests/train/tiny_models.py FOLDER` makes a small one) `axolotl preprocess` and `unsloth_train.py` run on the
processor. What such a machine lacks is changed, and nothing else: the model, the arithmetic, and the room that a
tokenizer of 800 words needs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOM = 8000  # tokens


def axolotl_schema(folder: Path) -> str:
    """Read the settings with Axolotl's own schema."""
    import yaml
    from axolotl.utils.schemas.config import AxolotlInputConfig

    settings = yaml.safe_load((folder / "axolotl.yml").read_text(encoding="utf-8"))
    read = AxolotlInputConfig(**settings)
    unknown = sorted(set(settings) - set(AxolotlInputConfig.model_fields))
    if unknown or read.excess_length_strategy != "raise":
        raise SystemExit(f"axolotl: {unknown or 'rows that are too long would not stop it'}")
    return f"Axolotl's schema takes axolotl.yml: {len(settings)} settings, none unknown"


def on_this_machine(folder: Path, model: Path) -> None:
    """Change what a small machine lacks, in a copy."""
    import yaml

    settings = yaml.safe_load((folder / "axolotl.yml").read_text(encoding="utf-8"))
    settings |= {"base_model": str(model), "bf16": False, "gradient_checkpointing": False, "sequence_len": ROOM}
    (folder / "axolotl.yml").write_text(yaml.safe_dump(settings | {"use_cpu": True}), encoding="utf-8")
    lines = (folder / "unsloth_train.py").read_text(encoding="utf-8").splitlines()
    lines = [f"TOKENS = {ROOM}" if line.startswith("TOKENS =") else line for line in lines]
    (folder / "unsloth_train.py").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(folder: Path, packages: list[Path], *words: str) -> str:
    """Run a trainer in the folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages)), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return f"{' '.join(words[:2])}: done"


def main() -> None:
    """Ask those whose packages were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="as `ocr_sprint convert` wrote it")
    parser.add_argument("--model", type=Path, help="folder of a small model with a chat template")
    parser.add_argument("--packages", type=Path, nargs="*", default=[], help="folders of the unpacked wheels")
    given = parser.parse_args()
    if given.folder is None or not given.packages:
        print("nothing was asked: give --folder and --packages (see --help)")
        return
    packages = [path.resolve() for path in given.packages]
    sys.path[:0] = map(str, packages)
    names = ("AXOLOTL_DO_NOT_TRACK", "HF_HUB_OFFLINE", "UNSLOTH_DISABLE_STATISTICS", "UNSLOTH_COMPILE_DISABLE")
    os.environ |= dict.fromkeys((*names, "TORCHDYNAMO_DISABLE"), "1")
    print(axolotl_schema(given.folder))
    if given.model is not None:
        with tempfile.TemporaryDirectory() as place:
            copy = Path(shutil.copytree(given.folder, Path(place) / "training"))
            on_this_machine(copy, given.model.resolve())
            print(run(copy, packages, "-m", "axolotl.cli.preprocess", "axolotl.yml"))
            print(run(copy, packages, "unsloth_train.py", str(given.model.resolve())))


if __name__ == "__main__":
    main()
