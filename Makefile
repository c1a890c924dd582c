.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test lint types docs torture emoji wheel comfyui clean

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/installed  ## create .venv with everything that development needs

demo: setup  ## tune emoji-64 until it collapses, undo it, measure everything, write the report
	$(BIN)/sfumato demo

test: setup  ## the test suite
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m 'not torture' -n auto --dist loadfile

docs: setup  ## build the site, build/site/index.html; nothing is fetched
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

torture: setup  ## kill, fuzz and load campaigns
	$(BIN)/python -m pytest -m torture --timeout 3600

lint: setup  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## static types
	$(BIN)/mypy

emoji: setup  ## make the bundled models again from the artwork (hours)
	$(BIN)/python -m tools.emoji

wheel: setup  ## build the wheel
	$(BIN)/python -m build --wheel

comfyui: setup  ## the ComfyUI nodes in a real one: make comfyui COMFYUI=/path/to/ComfyUI COMFYUI_PYTHON=its/python
	COMFYUI=$(COMFYUI) $(or $(COMFYUI_PYTHON),$(BIN)/python) -m pytest -rs tests/integrations/test_comfyui_source.py

clean:  ## remove build products and caches, keep runs
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
