# Each target creates the virtual environment that it needs. Continuous integration runs the same targets.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin
# `make demo IMAGES=folder` uses your own images in place of synthetic ones.
IMAGES ?=
OUT ?= demo_output

.DELETE_ON_ERROR:
.PHONY: demo test test-lowest test-wheel wheel constraints lint types docs docs-check notebooks clean

demo: $(VENV)/.installed
	$(RUN)/c2l demo --out "$(OUT)" $(if $(IMAGES),--images "$(IMAGES)")

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(RUN)/pytest -n 2 --dist loadfile

# The test suite with the oldest dependencies that pyproject.toml allows, in a separate environment.
test-lowest: .venv-lowest/.installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/pytest -n 2 --dist loadfile

# The same commit builds the same bytes: they do not depend on the folder, the umask, or the times and modes of files.
wheel: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
wheel: $(VENV)/.installed-dev
	rm -rf build dist
	$(RUN)/python -m build --no-isolation --sdist --wheel --outdir dist

# Builds sdist and wheel again, the wheel from the sdist, compares the bytes, and tests the wheel as users install it:
# in a separate environment, outside the checkout and without the dependencies of training (5 to 10 minutes, 6 GB of
# disk).
test-wheel: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
test-wheel: wheel
	umask 077; $(RUN)/python -m build --no-isolation --outdir build/again
	cmp dist/*.whl build/again/*.whl
	cmp dist/*.tar.gz build/again/*.tar.gz
	rm -rf .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet "$$(echo dist/*.whl)[dicom]" hypothesis pytest pytest-xdist
	copy=$$(mktemp -d) && cp -r tests pyproject.toml $$copy && cd $$copy && OMP_NUM_THREADS=1 \
		"$(CURDIR)/.venv-wheel/bin/pytest" -n 2 --dist loadfile -m "not training" --ignore tests/training && rm -r $$copy
	ls -l dist/*.whl
	rm -rf .venv-wheel

# Writes the versions of this environment, with which the tests passed, to constraints.txt (Linux). Continuous
# integration installs them for one Python, and the newest versions for the other. A local version, such as torch's
# +cu130, is left out.
constraints: $(VENV)/.installed-dev
	$(RUN)/python -m pip freeze --exclude-editable | sed 's/+.*//' > constraints.txt

lint: $(VENV)/.installed-dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/lint-imports --no-cache

types: $(VENV)/.installed-dev
	$(RUN)/mypy

# The documentation site, in site/: open site/index.html. `NO_MKDOCS_2_WARNING` silences an advertisement.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

# Executes the notebooks of docs/notebooks, and stores their outputs.
notebooks: $(VENV)/.installed-dev
	$(RUN)/python docs/run_notebooks.py

# Runs the snippets of the README and of docs/, and checks links, names, commands and stated metrics.
docs-check: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(RUN)/pytest tests/test_readme.py tests/test_architecture_docs.py tests/test_stated_figures.py

# The target is pip and not python: if Python lacks ensurepip, venv fails and leaves an environment without pip.
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
	# The oldest onnxscript, which torch 2.6 needs, cannot read files of the newest protobuf.
	echo 'protobuf<7' | .venv-lowest/bin/uv pip install --quiet --python .venv-lowest --resolution lowest-direct \
		--constraints - --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-lowest .venv-wheel $(OUT) build dist site *.egg-info
