# Everything runs in .venv, made on first use. The stamp files in it remember what is installed, so that a second call
# installs nothing unless pyproject.toml changed.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help train test test-all test-faults test-mutations test-clusters examples check format docs pictures benchmark bench-gpu bench-recipe bench-peers wheel clean

help: ## Show this list
	@echo 'make TARGET [ARGS="..."] [PYTHON=python3.12]'
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1#\2/p' Makefile | while IFS='#' read -r name text; do \
	  printf '%-17s %s\n' "$$name" "$$text"; done

train: $(VENV)/.installed ## Train, on the embedded digits by default: make train ARGS="model=mlp epochs=5"
	$(BIN)/bigmodel-train $(ARGS)

test: $(VENV)/.installed-test ## Run the quick tests; real data too if BIGMODEL_DATA_DIR holds it: make test ARGS="-k cli"
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" $(ARGS)

test-all: $(VENV)/.installed-test ## All tests, the slow ones and those of the extras too: half an hour
	$(INSTALL) --editable '.[test,all,docs]'
	$(BIN)/python -m pytest -n auto --dist worksteal --timeout=1200 $(ARGS)

test-faults: $(VENV)/.installed-test ## The fault campaign, in full: half an hour or more; its table goes to outputs/faults.md
	BIGMODEL_FAULTS=full BIGMODEL_FAULTS_TABLE=outputs/faults.md \
	  $(BIN)/python -m pytest --timeout=3600 tests/faults tests/test_resume.py $(ARGS)

test-mutations: $(VENV)/.installed-test ## Take out one safeguard at a time: a test must fail for each; some minutes
	$(BIN)/python scripts/mutations.py $(ARGS)

test-clusters: $(VENV)/.installed-test ## Sweeps through submitit's local executor and a Ray cluster on loopback; minutes
	$(INSTALL) --editable '.[test,slurm,ray]'
	BIGMODEL_CLUSTERS=1 $(BIN)/python -m pytest tests/test_clusters.py $(ARGS)

examples: $(VENV)/.installed ## Every experiment cut to a few batches, then asked about raw input; minutes
	$(BIN)/python scripts/examples.py $(ARGS)

check: $(VENV)/.installed-dev ## Lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs ## Build the site of README.md and docs/ into build/site/, links checked: open its index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

pictures: $(VENV)/.installed-docs ## Draw the pictures of README.md anew, from a real run
	$(BIN)/python scripts/pictures.py $(ARGS)

benchmark: $(VENV)/.installed ## Measure speed and memory side by side; fails if a bar of docs/performance.md is missed
	@status=0; for name in startup loop_overhead saving memory loading scaling sweep nanogpt; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || status=1; done; exit $$status

bench-gpu: $(VENV)/.installed ## On a GPU: seconds to 94 % on CIFAR-10, share of the peak
	$(BIN)/python benchmarks/gpu.py $(ARGS)

bench-recipe: $(VENV)/.installed ## experiment=cifar10_94 with three seeds: accuracy, time, share of the peak; hours on a CPU
	$(BIN)/python benchmarks/recipe.py $(ARGS)

bench-peers: $(VENV)/.installed ## Beside Lightning, HF and timm, installed into build/peers; needs the real data
	$(BIN)/python benchmarks/compare_peers.py $(ARGS)

wheel: $(VENV)/.installed-dev ## Build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## Remove .venv, caches and dist/; the runs in outputs/ stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14))' || { echo \
	  'error: Python 3.11, 3.12 or 3.13 is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	@echo 'Installing into $(VENV): a few minutes and some gigabytes the first time'
	$(INSTALL) --editable '.[plots]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/pip
	@echo 'Installing into $(VENV): a few minutes and some gigabytes the first time'
	$(INSTALL) --editable '.[test,plots]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	@echo 'Installing into $(VENV): a few minutes and some gigabytes the first time'
	$(INSTALL) --editable '.[dev,plots]'
	@touch $(VENV)/.installed $(VENV)/.installed-test $@

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/pip
	$(INSTALL) --editable '.[docs]'
	@touch $(VENV)/.installed $@
