# Each target sets up all that it needs, from a fresh clone. PYTHON=python3.13 picks the interpreter of .venv.
PYTHON ?= python3
ARGS ?=

# Where nothing is kept compiled, each of the many processes of a test or a job would compile Celeriac anew.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: research test check bench chaos clean

research: .venv/.run
	.venv/bin/celeriac research $(ARGS)

test: .venv/.dev
	bash tests/install-servers.sh
	.venv/bin/pytest -m "not chaos" -q -n 3 $(ARGS)

check: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

bench: .venv/.dev
	bash tests/install-servers.sh
	.venv/bin/python bench/run.py $(ARGS)

chaos: .venv/.dev
	bash tests/install-servers.sh
	.venv/bin/pytest tests/chaos -m chaos --timeout 1800 $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .grimp_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in seconds; pip is there when uv is not.
define install
	.venv/bin/python -m pip --disable-pip-version-check install -q uv || true
	.venv/bin/python -m uv pip install -q --python .venv/bin/python --compile-bytecode -e '.[$(1)]' \
		|| .venv/bin/python -m pip --disable-pip-version-check install -q -e '.[$(1)]'
	touch $@
endef

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or \
		sys.exit("Celeriac needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.13 ...")'
	$(PYTHON) -m venv .venv

.venv/.run: pyproject.toml | .venv/bin/python
	$(call install,pdf)

.venv/.dev: pyproject.toml | .venv/bin/python
	$(call install,dev)
