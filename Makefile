# The commands of this repository. Each sets up .venv by itself when it is missing or when pyproject.toml has changed.

# The first Python on the PATH that is new enough and can make environments; evaluated only when .venv is to be made.
PYTHON = $(shell for name in python3.13 python3.12 python3.11 python3.14 python3; do \
	$$name -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: quickstart up test check bench migrate

quickstart: $(READY)  ## train two encoders on real digits, judge them, and leave three pictures in quickstart/
	@$(BIN)/twoviews demo --out quickstart

up: $(READY)  ## the whole service on this machine, data in ./twoviews-data
	@$(BIN)/twoviews up

test: $(READY)  ## every test; needs no server
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(READY)  ## format, lint, types, architecture, documentation, migrations
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/pytest tests/test_architecture.py tests/test_docs.py && $(BIN)/python -m service check

bench: $(READY)  ## the measurements of benchmarks/README.md; pretrain needs a dataset, see there
	@for name in views metrics api embed first_metric; do echo "== $$name" && $(BIN)/python -m benchmarks.$$name || exit 1; done

migrate: $(READY)  ## bring the database of TWOVIEWS_DATABASE_URL (or of ./twoviews-data) to the newest schema
	@$(BIN)/python -m service migrate

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer, with venv, is needed" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (a minute or two, once) …" && $(BIN)/pip install -qq --editable ".[dev]" && touch $@
