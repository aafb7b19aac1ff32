# Every target sets itself up: the environment is made on first use and again when its inputs change.
VENV ?= .venv
READY := $(VENV)/.ready
READY_TO_TRAIN := $(VENV)/.ready-to-train
BIN := $(VENV)/bin
WORKERS ?= 2
SOURCES := $(wildcard nbs tests scripts bench docs) setup.py

# In a container one is often root, which Jupyter otherwise refuses to be.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.PHONY: help install install-train demo test test-train test-browser check docs lab freeze bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(READY): settings.ini constraints.txt setup.py scripts/environment.sh
	@bash scripts/environment.sh $(VENV)

# pip rather than uv, since pip takes the CPU build of torch (200 MB) where its find-links or an extra index offer one. From the
# package index alone, Linux gets the build for CUDA: it needs no GPU, and several GB of room. macOS has its own build.
$(READY_TO_TRAIN): $(READY) constraints-train.txt
	@echo "installing torch and TRL into $(VENV); without a CPU build of torch at hand this takes several GB"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-train.txt -e '.[train]'
	@touch $@

install: $(READY)  ## make .venv with everything but training

install-train: $(READY_TO_TRAIN)  ## add torch, transformers, peft and TRL to .venv

demo: $(READY)  ## read letters, correct them, export ground truth: the main job on real OCR
	$(BIN)/ocr_sprint demo

check: $(READY)  ## notebooks and package in step and clean, lint, types, README
	$(BIN)/python scripts/in_step.py
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/mypy scripts docs/conf.py
	$(BIN)/python scripts/readme.py --check

test: check  ## check, then run every notebook and every test
	$(BIN)/nbdev_test --n_workers $(WORKERS) --timing
	$(BIN)/pytest -n $(WORKERS)

test-train: $(READY_TO_TRAIN)  ## notebooks and tests of training with torch, without a GPU or a network
	$(BIN)/nbdev_test --path nbs/training --file_re '^2[0-9]' --flags train --n_workers 1 --timing
	$(BIN)/nbdev_test --path nbs/tools/15e_finetune_qwen.ipynb --flags train
	$(BIN)/pytest tests/train

test-browser: $(READY)  ## the panels in a real JupyterLab; needs Chromium and npm
	$(BIN)/pytest tests/browser

docs: $(READY)  ## the documentation site in _site/html, offline, warnings as errors
	$(BIN)/python scripts/docs.py

# Jupyter's news would cover the panel's last line, and ask a closed network for what it does not have.
lab: $(READY)  ## JupyterLab on the review panel, over the demo's letters where there are some
	$(BIN)/jupyter lab --notebook-dir=nbs --LabApp.news_url=None --LabApp.default_url=/lab/tree/tutorials/00_review.ipynb $(AS_ROOT)

freeze: $(READY)  ## write the versions of .venv, once they pass, into constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -vxFf constraints-train.txt > constraints.txt
	@touch $(READY)

bench: $(READY)  ## every measurement of bench/
	@set -e; for file in bench/*.py; do echo "$$file"; $(BIN)/python "$$file"; done

clean:  ## remove what the targets built, except the environment and the demo's letters
	rm -rf _proc _site _docs build dist *.egg-info nbs/sidebar.yml
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find nbs ocr_sprint scripts tests bench docs -name __pycache__ -prune -exec rm -rf {} +
