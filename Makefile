# One place to start everything. The virtual environment is made on first use; PYTHON chooses its Python,
# ARGS adds flags: make baseline ARGS="--num-epochs 3"
PYTHON ?= python3
PIP_INSTALL = .venv/bin/python -m pip install -q --disable-pip-version-check
PYTEST = -m pytest -n 2 --dist worksteal

.PHONY: help baseline test test-fast test-lowest check style types dependencies constraints

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

baseline: .venv/installed ## Train the baseline and record it; installs what it needs the first time
	.venv/bin/python -m harness.run baseline --fallback digits $(ARGS)

test: .venv/installed-for-tests ## Run all tests
	.venv/bin/python $(PYTEST) $(ARGS)

# More threads than cores wait for one another.
test-fast: .venv/installed-for-tests ## Run the tests that start no process, in under a minute
	OMP_NUM_THREADS=1 .venv/bin/python $(PYTEST) -m 'not processes' $(ARGS)

test-lowest: ## Run all tests with the lowest versions that pyproject.toml admits, in .venv-lowest
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install -q --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install -q --python .venv-lowest/bin/python \
		--resolution lowest-direct -e '.[test]'
	.venv-lowest/bin/python $(PYTEST) $(ARGS)

check: style types dependencies ## Check format, style, types and declared dependencies

style: .venv/installed-for-tests ## Check format and style
	.venv/bin/python -m ruff format --check
	.venv/bin/python -m ruff check

types: .venv/installed-for-tests ## Check types for each platform
	.venv/bin/python -m mypy --platform linux
	for platform in darwin win32; do .venv/bin/python -m mypy --platform $$platform \
		--cache-dir .mypy_cache/$$platform harness experiments studies || exit; done

# What the package imports, then what the tests import as well.
dependencies: .venv/installed-for-tests ## Check that the declared dependencies are the imported ones
	.venv/bin/deptry .
	.venv/bin/deptry . tests tests/*/ --exclude '\.venv|/\.git' --ignore DEP004

constraints: .venv/installed-for-tests ## Renew constraints.txt with today's versions
	$(PIP_INSTALL) --upgrade --upgrade-strategy eager -e '.[cmaes,dashboard,metrics,system-metrics,test]'
	{ grep '^#' constraints.txt && .venv/bin/python -m pip list --format=freeze \
		--disable-pip-version-check --exclude-editable --exclude pip; } > .venv/constraints.txt
	mv .venv/constraints.txt constraints.txt

# The stamps come last, so that an interrupted installation is taken up again.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo '$(PYTHON) is missing or older than Python 3.11. Name another one: PYTHON=python3.12 make baseline' >&2; \
		exit 1; }
	@echo 'Installing into .venv. The first time on Linux: about 2.7 GB to download, 6.3 GB on disk'
	@echo '(mostly CUDA libraries that PyTorch brings along), 3 minutes on a fast line. Quiet until done.'
	@.venv/bin/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(PIP_INSTALL) -c constraints.txt -e .
	@touch $@

.venv/installed-for-tests: .venv/installed
	@echo 'Installing what tests and checks need.'
	@$(PIP_INSTALL) -c constraints.txt -e '.[test]'
	@touch $@
