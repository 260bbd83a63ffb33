# Development commands. Each creates .venv if it is missing or if pyproject.toml has changed.

# The first Python on the PATH that is new enough and has venv; evaluated only when .venv is created.
PYTHON = $(shell for name in python3.13 python3.12 python3.11 python3.14 python3; do \
	$$name -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
READY := .venv/.ready

# Write bytecode whatever is exported: the tests start hundreds of processes, each of which would compile every module.
export PYTHONDONTWRITEBYTECODE =

.PHONY: quickstart up screenshots test nemesis syscalls gpu gpu-dry fuzz check bench migrate

quickstart: $(READY)  ## train two encoders on real digits, evaluate them, and write three pictures to quickstart/
	@$(BIN)/twoviews demo --out quickstart

up: $(READY)  ## the whole service on this machine, data in ./twoviews-data
	@$(BIN)/twoviews up

test: $(READY)  ## all tests; no server needed
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

nemesis: $(READY)  ## 1,000 faults over 320 jobs, half on SQLite and half on PostgreSQL; reports in nemesis/
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.nemesis --out nemesis

syscalls: $(READY)  ## every write killed, or failed, at each of its system calls; `make test` draws a few of these cases
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.syscalls

gpu: $(READY)  ## the acceptance on a GPU, 5 and 8 minutes, or in small on a CPU; results in acceptance/
	@status=0; for part in first long; do $(BIN)/python -m benchmarks.acceptance $$part $(if $(IMAGES),--images $(IMAGES)) || status=1; done; exit $$status

gpu-dry: $(READY)  ## the core on a pretended GPU, and what a step costs on it; needs a C++ compiler and no GPU
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.gpu

check: $(READY)  ## format, lint, types, architecture, documentation, a generated client, migrations
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/pytest tests/test_architecture.py tests/test_docs.py tests/test_openapi.py && $(BIN)/python -m service check

fuzz: $(READY)  ## 5,000 requests of Schemathesis to an API on SQLite, and 5,000 on PostgreSQL
	@for name in sqlite postgresql; do $(BIN)/python -m tests.api.fuzz --cases 5000 --database $$name || exit 1; done

screenshots: $(READY)  ## the pictures of the page in docs/page/; IMAGES=photos.zip takes others than the digits
	@$(BIN)/python -m tests.browser.screenshots --out docs/page $(if $(IMAGES),--images $(IMAGES))

bench: $(READY)  ## the benchmarks of benchmarks/README.md that need no dataset
	@for name in views metrics api embed first_metric; do echo "== $$name" && $(BIN)/python -m benchmarks.$$name || exit 1; done

migrate: $(READY)  ## upgrade the database of TWOVIEWS_DATABASE_URL (or of ./twoviews-data) to the newest schema
	@$(BIN)/python -m service migrate

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is required" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (a minute or two, once) …" && $(BIN)/pip install -qq --editable ".[dev]" && touch $@
