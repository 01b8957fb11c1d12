PYTHON ?= python3
PORT ?= 8000
COMPILE = .venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links
VIEWGATE = .venv/bin/viewgate
# FRESH=1 forgets what earlier demos stored
DEMO = --port $(PORT) $(if $(filter-out 0,$(FRESH)),--fresh)

.NOTPARALLEL:
.PHONY: demo test check lock bench clean system-packages

demo: .venv/ready
	@exec $(VIEWGATE) demo $(DEMO)

test: system-packages .venv/ready
	@.venv/bin/pytest $(PYTEST)

check: .venv/ready
	@.venv/bin/ruff check -q .
	@.venv/bin/ruff format -q --check .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --no-logo >/dev/null || .venv/bin/lint-imports
	@.venv/bin/pytest -q -m "not servers" $(PYTEST)

bench: .venv/ready
	@.venv/bin/python -m bench.projector

lock: .venv/ready
	@.venv/bin/uv --version >/dev/null 2>&1 || .venv/bin/python -m pip install -q uv
	@$(COMPILE) pyproject.toml -o requirements/run.txt
	@$(COMPILE) pyproject.toml --extra dev -o requirements/dev.txt

# a data folder that PostgreSQL's user could not reach is a link to one outside
clean:
	@find .cache -type l -name postgres -exec readlink {} \; 2>/dev/null | grep '^/var/tmp/viewgate-' | xargs -r rm -rf
	@rm -rf .cache .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

system-packages:
	@tools/system-packages $(PYTHON)

.venv/ready: requirements/dev.txt pyproject.toml tools/make-venv
	@tools/make-venv $(PYTHON)
