"""What the tests of training share: a folder of training data, and a model so small that a test can train it.

Nothing is downloaded: the tokenizer is learnt from the training data, and the model has random weights. They prove
which tokens are learnt and that the settings are taken, not that anything is learnt well.
"""

import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import datasets
import pytest
import torch
from convert_samples import fill, in_schema_order
from tiny_models import tiny_qwen, tiny_tokenizer

from ocr_sprint.review.convert import Conversion, convert
from ocr_sprint.review.convert_formats import FORMATS
from ocr_sprint.review.convert_splits import Division
from ocr_sprint.review.store import open_store

datasets.disable_progress_bars()
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Twenty letters in every format."""
    place = tmp_path_factory.mktemp("convert")
    with open_store(f"sqlite:///{place}/store.db") as store:
        fill(store, 20)
        conversion = Conversion(tuple(FORMATS), division=Division(0.6, 0.2, 0.2))
        convert(store, place / "training", conversion, in_schema_order)
    return place / "training"


@pytest.fixture(scope="session")
def rows(folder, tmp_path_factory):
    """A function that loads the rows of a format, all splits one after the other."""

    def load(form):
        loaded = datasets.load_dataset(str(folder), form, cache_dir=str(tmp_path_factory.mktemp("cache")))
        return datasets.concatenate_datasets(list(loaded.values()))

    return load


@pytest.fixture(scope="session")
def tokenizer(rows):
    """A byte-level tokenizer with a chat template."""
    return tiny_tokenizer(row["input"] + row["output"] for row in rows("alpaca"))


@pytest.fixture
def model(tokenizer):
    """Some ten thousand random weights."""
    return tiny_qwen(len(tokenizer), width=16, layers=1)


@pytest.fixture
def model_folder(model, tokenizer, tmp_path):
    """The model and the tokenizer as a folder that a command can be pointed at."""
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"
