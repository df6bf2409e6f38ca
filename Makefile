# The commands for people and CI. Each makes or repairs .venv first; where nothing changed that costs no process at all.
# Variables: PYTHON (interpreter for .venv), ARGS (passed on to the program), JOBS (parallel tests).

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
PY := $(VENV)/bin/python
RUN_STAMP := $(VENV)/.stamp-run
TEST_STAMP := $(VENV)/.stamp-test
SETUP_INPUTS := pyproject.toml constraints.txt packaging/bootstrap.py packaging/system_libraries.py $(PY)
PYTEST := $(PY) -m pytest
PARALLEL := -n $(JOBS) --dist loadfile --max-worker-restart 0 --no-loadscope-reorder
LINT_IMPORTS := $(PY) -c 'from importlinter.cli import lint_imports_command as run; run()'

# Without .pyc files a start is two to three times dearer (import sqlalchemy.orm: 1296 ms of CPU against 416 ms).
unexport PYTHONDONTWRITEBYTECODE

# A virtual environment does not survive a move of its folder: it is made again where the recorded folder differs.
ifneq "$(file <$(VENV)/.root)" "$(CURDIR)"
SETUP_INPUTS += moved
endif

.PHONY: run setup repair test check static format shots bench changelog clean moved help

run: $(RUN_STAMP)  ## Start the application
	@$(PY) -P -m app $(ARGS)

setup: $(TEST_STAMP)  ## Make the environment with everything a developer needs

repair:  ## Verify every installed file and put right what is missing or damaged
	@"$(PYTHON)" packaging/bootstrap.py repair

test: $(TEST_STAMP)  ## Run every test that needs no special hardware
	@$(PYTEST) $(PARALLEL) $(ARGS)

check: static  ## Format, lint, types, import contracts, then the quick tests
	@$(PYTEST) $(PARALLEL) tests/unit tests/contract tests/gui $(ARGS)

static: $(TEST_STAMP)
	@$(PY) -m ruff format --check --quiet --output-format concise . || { echo "Some files are not formatted: run 'make format'."; exit 1; }
	@$(PY) -m ruff check .
	@$(PY) -m basedpyright
	@$(LINT_IMPORTS)

format: $(TEST_STAMP)  ## Format the code and fix what the linter can fix
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

shots: $(TEST_STAMP)  ## Take a screenshot of every page in every state into shots/
	@$(PY) -m tests.shots $(ARGS)

bench: $(TEST_STAMP)  ## Run every benchmark; each prints one line of JSON
	@for file in tests/bench/bench_*.py; do \
		module=$${file%.py}; \
		$(PY) -m "$$(echo "$$module" | tr / .)" $(ARGS) || exit 1; \
	done

changelog: $(TEST_STAMP)  ## Show what the next release's notes will say
	@$(PY) -m towncrier build --draft --version Unreleased

clean:  ## Remove what tests and tools left behind; .venv and your runs stay
	@rm -rf build dist shots .pytest_cache .ruff_cache .import_linter_cache

help:  ## List these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(RUN_STAMP): $(SETUP_INPUTS)
	@"$(PYTHON)" packaging/bootstrap.py run

$(TEST_STAMP): $(SETUP_INPUTS)
	@"$(PYTHON)" packaging/bootstrap.py test

# A missing or renewed interpreter makes the stamps out of date.
$(PY):
	@:
