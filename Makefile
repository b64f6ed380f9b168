# Targets: make demo | test | test-slow | check | format | benchmark. Everything runs in .venv, which they make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test test-slow check format benchmark clean

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# Peers of the tests only. Their own requirements would replace PyTorch's CPU build or contradict each other.
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps torchattacks torchvision timm
	touch $@

demo: .venv/.installed
	$(BIN)/robustmaps demo

test: .venv/.installed-dev
	$(BIN)/pytest -n auto

test-slow: .venv/.installed-dev
	$(BIN)/pytest -n auto -m slow

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: .venv/.installed-dev
	$(BIN)/python benchmarks/train_step.py

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
