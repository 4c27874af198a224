# Works with GNU make 3.81 (macOS) and later. `make` alone lists the targets.
PYTHON ?= python3.11
ARGS ?=

# Notebooks whose committed figures come from records; `make figures RECORDED=03` draws those of one. 03, 04, 06 and 07
# also draw what one batch does: they ask the hub for data and weights.
RECORDED := 00 01 02 03 04 05 06 07 08 10 11 12 13

VENV := .venv
BIN := $(VENV)/bin
# Written last, so that an environment whose building was interrupted has none.
BUILT := $(VENV)/.built

.DEFAULT_GOAL := help
.PHONY: help run lab test bench figures lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'Options go into ARGS: make run ARGS="--only 01 --profile smoke", make test ARGS="-m \"not notebook\""'

run: $(BUILT)  ## build the environment if needed and execute all notebooks (profile quick)
	@$(BIN)/python run_all.py $(ARGS)

lab: $(BUILT)  ## open the notebooks in JupyterLab
	@JUPYTER_PREFER_ENV_PATH=1 PYTHONPATH="$(CURDIR)" $(BIN)/python -m jupyterlab $(ARGS)

test: $(BUILT)  ## run the tests
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

bench: $(BUILT)  ## measure compressors, pipelines and the playground (benchmarks/README.md)
	@$(BIN)/python -m benchmarks.compressors $(ARGS)
	@$(BIN)/python -m benchmarks.lowrank $(ARGS)
	@$(BIN)/python -m benchmarks.lossless $(ARGS)
	@$(BIN)/python -m benchmarks.deadzone $(ARGS)
	@$(BIN)/python -m benchmarks.pipelines $(ARGS)
	@$(BIN)/python -m benchmarks.playground $(ARGS)

figures: $(BUILT)  ## draw the README's tables and figures anew from the records in results/, train nothing
	@$(BIN)/python run_all.py --profile real --recorded --only $(RECORDED) $(ARGS)
	@$(BIN)/python -m splitlib headline --write README.md results/README.md

lint: $(BUILT)  ## check style and types, change nothing
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --check
	@$(BIN)/python -m mypy

clean:  ## remove caches and runs/, with its unfinished training; keep .venv, results/ and figures/
	@rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

# Without the stamp the environment is half-built: start over. With an older one, bring it up to date in place.
$(BUILT): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'error: "$(PYTHON)" is not Python 3.11 or later; install it, or name another: make PYTHON=python3.12 run' >&2; \
	  exit 1; }
	@test -f $@ && echo 'updating $(VENV)' || echo 'building $(VENV): takes a few minutes and about 6 GB on Linux'
	@test -f $@ || rm -rf $(VENV)
	@rm -f $@
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
