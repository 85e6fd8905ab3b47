# make demo   install into .venv and run the demonstration; again: make demo OUTPUT=another-folder
# make test   install into .venv and run every test
# make audit  compare the installed packages with the advisories that are known of them: needs a network
PYTHON ?= python3
VENV := .venv
OUTPUT ?= infopro-demo
BIN := $(VENV)/bin

.PHONY: demo test lint audit clean

demo: $(VENV)/.demo
	$(BIN)/infopro demo --output $(OUTPUT)

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

audit: $(VENV)/.dev
	$(BIN)/python -m pip check
	$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/audited.txt
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet "pip-audit>=2.7"
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/audited.txt

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"infopro needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}: run make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[demo,report]"
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
