"""Measure LoRA regression on a Qwen-shaped model of random weights: tokens a second, memory, share of the peak.

    python bench/finetune.py --size 0.5 --rows 512 --tokens 512     half a billion weights, on a GPU in bfloat16
    python bench/finetune.py --size tiny --rows 64 --tokens 64      on a processor: proves the bench and nothing else

Needs torch (make install-train). Random weights train as fast as others. The training loop is the library's own; rows
are all of one length, so nothing is filled up. The peak is the card's dense bfloat16 rate, where it is known by name.
Nothing is evaluated or saved while it is timed, and the work of attention over long texts is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arguments import whole

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Layers, width, inner width, heads and key-value heads of the Qwen2.5 family; the vocabulary is 151,936 tokens.
SHAPES = {
    "tiny": (2, 64, 128, 4, 2),
    "0.5": (24, 896, 4864, 14, 2),
    "1.5": (28, 1536, 8960, 12, 2),
    "3": (36, 2048, 11008, 16, 2),
    "7": (28, 3584, 18944, 28, 4),
}
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12}
DIMENSIONS = 8


def model_folder(folder: Path, size: str) -> Path:
    """A model of that size with random weights, and a tokenizer, as a folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    layers, width, inner, heads, shared = SHAPES[size]
    vocabulary = 1000 if size == "tiny" else 151_936
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<pad>": 0, **{f"w{n}": n for n in range(1, 900)}}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<pad>", pad_token="<pad>").save_pretrained(folder)
    return folder


def rows(count: int, tokens: int, seed: int) -> list[dict[str, Any]]:
    """Rows of equal length, with scores of every dimension."""
    import numpy as np

    from ocr_sprint.training.regression import rows_of

    generator = np.random.default_rng(seed)
    words = generator.integers(1, 900, (count, tokens)).tolist()
    return rows_of(words, generator.normal(size=(count, DIMENSIONS)).astype(np.float32))


def clock() -> Any:
    """A callback that notes when each step began and ended."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Times of the steps."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_given: Any, **_named: Any) -> None:
            """Wait for the card, and note the time."""
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    return Clock()


def memory() -> float:
    """The most that was held, in GB: of the card where there is one, else of the process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train one epoch, and tell how fast and how large it was."""
    import numpy as np
    from transformers import EarlyStoppingCallback, PrinterCallback
    from transformers.utils.logging import disable_progress_bar

    from ocr_sprint.ground_truth.scores import ScoreScale
    from ocr_sprint.training.finetune_memory import run_needs
    from ocr_sprint.training.finetune_model import check_model, find_machine, quiet, versions
    from ocr_sprint.training.finetune_plan import Plan, settings_of
    from ocr_sprint.training.finetune_run import begin
    from ocr_sprint.training.regression import Data, Standard, build_model, make_trainer

    quiet()
    disable_progress_bar()
    files = {"train": [folder / "none.jsonl"], "val": [folder / "none.jsonl"]}
    (folder / "none.jsonl").write_text("")
    model = str(model_folder(folder / "model", given.size))
    plan = Plan(files, model, folder / "run", epochs=1, max_length=given.tokens, micro_batch=given.micro_batch)
    machine = find_machine()
    settings = settings_of(plan, machine.gpu is not None)
    base = check_model(plan, machine)
    run = begin(plan, settings, machine)
    needs = run_needs(base, run, given.tokens, DIMENSIONS)
    standard = Standard(np.zeros(DIMENSIONS), np.ones(DIMENSIONS))
    data = Data(rows(given.rows, given.tokens, 0), rows(settings.batch, given.tokens, 1), standard, ScoreScale())
    trainer = make_trainer(run, build_model(base, settings, DIMENSIONS, machine, 0), base, data)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.load_best_model_at_end = False
    for kind in (EarlyStoppingCallback, PrinterCallback):
        trainer.remove_callback(kind)
    watch = clock()
    trainer.add_callback(watch)
    trainer.train()
    ends = watch.ends[given.warm_up :]
    steps, seconds = len(ends) - 1, ends[-1] - ends[0]
    tokens = steps * settings.batch * given.tokens / seconds
    checkpointing = bool(getattr(trainer.args, "activation_checkpointing", machine.gpu is not None))
    return {
        "device": machine.gpu or "processor",
        "bf16": machine.bf16,
        "weights": base.weights,
        "trained": sum(w.numel() for w in trainer.model.parameters() if w.requires_grad),
        "steps": steps,
        "batch": settings.batch,
        "tokens_a_row": given.tokens,
        "checkpointing": checkpointing,
        "rows_per_second": round(tokens / given.tokens, 2),
        "tokens_per_second": round(tokens),
        "memory_gb": round(memory(), 2),
        "memory_estimated_gb": round(needs[max(needs)].total / 1e9, 2),
        **share(machine.gpu, base, tokens, checkpointing),
        "versions": versions(),
    }


def share(card: str | None, base: Any, tokens: float, checkpointing: bool) -> dict[str, Any]:
    """How much of the card's peak that is.

    A forward pass is two operations for each weight outside of the embeddings and each token. The gradients of the
    activations are as many again; those of frozen weights are not computed. Checkpointing makes the forward pass twice:
    that is work of the card, but no use, and the model's share leaves it out.
    """
    config = base.config
    inside = base.weights - config.vocab_size * config.hidden_size
    useful = 4 * inside * tokens
    done = (6 if checkpointing else 4) * inside * tokens
    peak = next((rate for name, rate in PEAKS.items() if card and name in card), None)
    rates = {"useful_tflops": round(useful / 1e12, 3), "done_tflops": round(done / 1e12, 3)}
    if peak is None:
        return {**rates, "share_of_peak": None}
    return {
        **rates,
        "peak_tflops": peak / 1e12,
        "share_of_peak": round(useful / peak, 3),
        "busy": round(done / peak, 3),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SHAPES), default="tiny", help="billions of weights")
    parser.add_argument("--rows", type=whole(), default=256, help="rows of the epoch")
    parser.add_argument("--tokens", type=whole(), default=64, help="of each row")
    parser.add_argument("--micro-batch", type=whole(), default=None, help="rows at a time")
    parser.add_argument("--warm-up", type=whole(0), default=3, help="steps that are not counted")
    given = parser.parse_args()
    try:
        import torch  # noqa: F401
    except ImportError:
        print("bench/finetune.py needs torch: make install-train", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measure(given, Path(place))))


if __name__ == "__main__":
    main()
