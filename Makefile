# `make demo` and `make test` are all the set-up there is: each makes the virtual environment that it needs.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin
# Synthetic films by default; `make demo IMAGES=folder` takes your own.
IMAGES ?=
OUT ?= demo_output

.DELETE_ON_ERROR:
.PHONY: demo test test-lowest lint clean

demo: $(VENV)/.installed
	$(RUN)/c2l demo --out "$(OUT)" $(if $(IMAGES),--images "$(IMAGES)")

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(RUN)/pytest -n 2 --dist loadfile

# The suite on the oldest dependencies that pyproject.toml admits, in an environment of its own.
test-lowest: .venv-lowest/.installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/pytest -n 2 --dist loadfile

lint: $(VENV)/.installed-dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

# Made of pip's presence, not python's: where Python lacks ensurepip, venv fails and leaves half an environment.
$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	$(RUN)/python -m pip install --quiet --editable '.[train,dicom]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/pip
	$(RUN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

.venv-lowest/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest $(OUT) build dist *.egg-info
