# `make demo` and `make test` are all the set-up there is: each makes the virtual environment that it needs.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin
# Synthetic films by default; `make demo IMAGES=folder` takes your own.
IMAGES ?=
OUT ?= demo_output

.DELETE_ON_ERROR:
.PHONY: demo test test-lowest test-wheel wheel lint clean

demo: $(VENV)/.installed
	$(RUN)/c2l demo --out "$(OUT)" $(if $(IMAGES),--images "$(IMAGES)")

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(RUN)/pytest -n 2 --dist loadfile

# The suite on the oldest dependencies that pyproject.toml admits, in an environment of its own.
test-lowest: .venv-lowest/.installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/pytest -n 2 --dist loadfile

# The same commit gives the same bytes, whatever the folder, the umask and the files' times and modes.
wheel: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
wheel: $(VENV)/.installed-dev
	rm -rf build dist
	$(RUN)/python -m build --no-isolation --wheel --outdir dist

# What users install: built once more by way of the sdist, then tested in an environment of its own, where neither the
# checkout nor what trains is (5 to 10 minutes, and 6 GB while it runs).
test-wheel: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
test-wheel: wheel
	umask 077; $(RUN)/python -m build --no-isolation --outdir build/again
	cmp dist/*.whl build/again/*.whl
	rm -rf .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet "$$(echo dist/*.whl)[dicom]" hypothesis pytest pytest-xdist
	copy=$$(mktemp -d) && cp -r tests pyproject.toml $$copy && cd $$copy && OMP_NUM_THREADS=1 \
		"$(CURDIR)/.venv-wheel/bin/pytest" -n 2 --dist loadfile -m "not training" --ignore tests/training && rm -r $$copy
	ls -l dist/*.whl
	rm -rf .venv-wheel

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
	# The oldest onnxscript, of torch 2.6, cannot read what the newest protobuf writes.
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable '.[dev]' 'protobuf<7'
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest .venv-wheel $(OUT) build dist *.egg-info
