# Targets: make demo | test | test-slow | check | docs | format | audit | benchmark | lock | release. They make what they run in:
# .venv, and .venv-tools for audit, lock and release.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test test-slow check docs format audit benchmark lock release clean

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Every file that is installed has its hash in a lock file (requirements/lock.py says which is for what).
LOCKED := install --quiet --no-deps --require-hashes --requirement

.venv/.installed: .venv/bin/python pyproject.toml requirements/run.lock
	$(BIN)/pip $(LOCKED) requirements/run.lock
	$(BIN)/pip $(LOCKED) requirements/torch-cpu.lock || $(BIN)/pip $(LOCKED) requirements/torch.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv/.installed-dev: .venv/.installed requirements/dev.lock
	$(BIN)/pip $(LOCKED) requirements/dev.lock
	touch $@

.venv/.installed-docs: .venv/.installed requirements/docs.lock
	$(BIN)/pip $(LOCKED) requirements/docs.lock
	touch $@

.venv-tools/.installed: requirements/tools.lock
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/pip $(LOCKED) requirements/tools.lock
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

# The site, in build/site. Warnings are errors: links to nothing, pages that no menu lists, references to no name.
docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: .venv-tools/.installed
	.venv-tools/bin/python requirements/audit.py

lock: .venv-tools/.installed
	PATH="$(CURDIR)/.venv-tools/bin:$$PATH" python requirements/lock.py

# The packages for an index and, beside them, the list of what they need with its hashes: an SBOM in CycloneDX's format.
release: .venv-tools/.installed
	.venv-tools/bin/python -m build --no-isolation --outdir dist .
	cat requirements/run.lock requirements/torch.lock | .venv-tools/bin/cyclonedx-py requirements \
	  --pyproject pyproject.toml --output-reproducible --output-file dist/robustmaps-$$(.venv-tools/bin/hatchling version).cdx.json -

benchmark: .venv/.installed-dev
	$(BIN)/python benchmarks/train_step.py

clean:
	rm -rf .venv .venv-tools build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
