# Every target sets itself up: the environment is made on first use and again when its inputs change.
VENV ?= .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
WORKERS ?= 2
SOURCES := $(wildcard nbs tests scripts bench docs) setup.py

# In a container one is often root, which Jupyter otherwise refuses to be.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.PHONY: help install demo test check docs lab freeze bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(READY): settings.ini constraints.txt setup.py scripts/environment.sh
	@bash scripts/environment.sh $(VENV)

install: $(READY)  ## make .venv with everything

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

docs: $(READY)  ## the documentation site in _site/html, offline, warnings as errors
	$(BIN)/python scripts/docs.py

lab: $(READY)  ## JupyterLab on the tutorials
	$(BIN)/jupyter lab --notebook-dir=nbs --LabApp.default_url=/lab/tree/tutorials $(AS_ROOT)

freeze: $(READY)  ## write the versions of .venv, once they pass, into constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt
	@touch $(READY)

bench: $(READY)  ## every measurement of bench/
	@set -e; for file in bench/*.py; do echo "$$file"; $(BIN)/python "$$file"; done

clean:  ## remove what the targets built, except the environment and the demo's letters
	rm -rf _proc _site _docs build dist *.egg-info nbs/sidebar.yml
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find nbs ocr_sprint scripts tests bench docs -name __pycache__ -prune -exec rm -rf {} +
