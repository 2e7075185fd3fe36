# Two commands: `make run` (the whole service on this machine) and `make test` (all that CI runs).
# Both make their own virtual environment in .venv from a lock with hashes; nothing else is needed
# beforehand but Python >= 3.11.

PORT ?= $(or $(BURSAR_PORT),8000)
# The first Python of the machine that is new enough; PYTHON=/path/to/python overrides it.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq   # errors only
# A stamp is named after what was installed, so an old one never passes for the present lock.
sum = $(shell cat $(1) 2>/dev/null | cksum | cut -d ' ' -f 1)
RUN_STAMP := $(VENV)/.run-$(call sum,requirements.lock pyproject.toml)
DEV_STAMP := $(VENV)/.dev-$(call sum,requirements-dev.lock requirements.lock pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help run test docs lock clean
MAKEFLAGS += --no-print-directory

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

run: $(RUN_STAMP)  ## start everything on this machine; PORT=8000 and BURSAR_HOME=.bursar move it
	@BURSAR_PORT=$(PORT) exec $(BIN)/python -m bursar run

test: $(DEV_STAMP)  ## lint, types, layers, migrations, tests; all that CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m tests.alembic_check
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist loadfile $(addprefix --ignore=,$(ALONE))
	$(BIN)/python -m pytest $(ALONE)
endif
	@for browser in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$browser >/dev/null && exit; done; \
		echo "The browser tests did not run: no Chromium is on PATH (Debian's package chromium)."

# Tests that start whole stacks, kill and freeze them, and mind the time; the others run side by side.
ALONE := tests/crash tests/local tests/bench tests/deploy
TESTS_AT_ONCE ?= 2

docs: $(DEV_STAMP)  ## the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "build/site/index.html; with search: $(BIN)/python -m http.server --directory build/site --bind 127.0.0.1 8001"

lock: $(BIN)/python  ## make both locks anew from pyproject.toml (needs uv; installs it where it is missing)
	@command -v uv >/dev/null || $(PIP) install uv
	PATH="$$PATH:$(CURDIR)/$(BIN)" uv pip compile $(LOCK) --extra local -o requirements.lock
	PATH="$$PATH:$(CURDIR)/$(BIN)" uv pip compile $(LOCK) --extra dev -c requirements.lock -o requirements-dev.lock
LOCK := --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" pyproject.toml

clean:  ## remove the virtual environment (never the data in .bursar)
	rm -rf $(VENV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Bursar needs Python 3.11 or newer and found none; PYTHON=/path/to/python says where it is." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11, which Bursar needs." >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV) ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv $(VENV) >/dev/null || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# The lock of the tests holds all of the other one in the same versions: whoever has it may run, too.
$(RUN_STAMP): $(BIN)/python
	@test -e $(DEV_STAMP) || { echo "Installing what requirements.lock names (once; a minute or so)"; \
		$(PIP) install --require-hashes -r requirements.lock && $(PIP) install --no-deps --no-build-isolation -e .; }
	@rm -f $(VENV)/.run-* && touch $@

$(DEV_STAMP): $(BIN)/python
	@echo "Installing what requirements-dev.lock names (once; a minute or so)"
	@$(PIP) install --require-hashes -r requirements-dev.lock && $(PIP) install --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.dev-* && touch $@
