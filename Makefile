PYTHON ?= python3
PORT ?= 8000
COMPILE = .venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links
VIEWGATE = .venv/bin/viewgate
DEMO = --port $(PORT) $(if $(filter-out 0,$(FRESH)),--fresh) $(if $(filter-out 0,$(CDC)),--cdc)

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo shop dev test check faults torture simulate compare bench lock docs hooks clean system-packages

help: ## this list
	@if [ -t 1 ] && [ -z "$$NO_COLOR" ]; then bold=$$(printf '\033[1m') plain=$$(printf '\033[0m'); fi; \
	awk -v b="$$bold" -v p="$$plain" -F ':.*## ' '/^[a-z-]+:.*## / {printf "%s%-8s%s %s\n", b, $$1, p, $$2}' Makefile
	@echo
	@echo "PORT=8001          where the gateway listens: demo, shop, dev"
	@echo "FRESH=1            forget what an earlier demo stored: demo, shop, dev"
	@echo "CDC=1              services write PostgreSQL and Debezium publishes: demo, shop, dev"
	@echo "PYTEST='-k lookup' options of pytest: test, check"
	@echo "FAULT=f5           only this one, FRESH=1 also what has passed: faults"
	@echo "PYTHON=python3.12  the Python that .venv is made of"

demo: .venv/ready ## the whole stack with users, live changes, one query in four modes; Ctrl-C stops it
	@exec $(VIEWGATE) demo $(DEMO)

shop: .venv/ready ## the same with customers and their orders
	@exec $(VIEWGATE) demo --scenario examples.shop.scenario:SHOP $(DEMO)

dev: .venv/ready ## the demo's servers, with gateway and projector restarted when a file changes
	@exec $(VIEWGATE) demo --reload $(DEMO)

test: system-packages .venv/ready ## every test, against real servers; as root on Debian, installs what they need
	@.venv/bin/pytest $(PYTEST)

check: .venv/ready ## lint, types, the import contracts, and the tests that need no server
	@.venv/bin/ruff check -q .
	@.venv/bin/ruff format -q --check .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --no-logo >/dev/null || .venv/bin/lint-imports
	@.venv/bin/pytest -q -m "not servers" $(PYTEST)

faults: system-packages .venv/ready ## each of the twenty-eight faults that has not passed yet with this code; writes docs/faults.md
	@FAULTS=$(if $(filter-out 0,$(FRESH)),fresh,left) .venv/bin/pytest tests/chaos $(if $(FAULT),-k test_$(FAULT)_) $(PYTEST)

torture: system-packages .venv/ready ## 300,000 changes by every way of publishing while everything is killed: MINUTES=, SEED= repeats a run
	@.venv/bin/python -m tests.torture $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

simulate: .venv/ready ## histories of faults in memory: SEED= repeats a run, N= says how many
	@.venv/bin/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(N),--histories $(N))

compare: .venv/ready ## a view or a cache? A quick look at both, on servers of its own; leaves report/index.html
	@rm -rf report
	@$(VIEWGATE) compare --quick

bench: .venv/ready ## the projector against a plain pipelined HINCRBY, Kafka Streams, Bytewax and Quix Streams
	@.venv/bin/python -m bench.projector

docs: .venv/ready ## write anew what is made from the code: schema.graphql, docs/settings.md, docs/commands.md
	@.venv/bin/python -m app.reference

hooks: .venv/ready ## check and format what is committed, from now on
	@.venv/bin/pre-commit install

lock: .venv/ready ## pin the dependencies of pyproject.toml in requirements/
	@.venv/bin/uv --version >/dev/null 2>&1 || .venv/bin/python -m pip install -q uv
	@$(COMPILE) pyproject.toml -o requirements/run.txt
	@$(COMPILE) pyproject.toml --extra dev -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --extra bench -o requirements/bench.txt

# a data folder that PostgreSQL's user could not reach is a link to one outside
clean: ## remove .venv, .cache with what demos stored, and what tools left behind
	@find .cache -type l -name postgres -exec readlink {} \; 2>/dev/null | grep '^/var/tmp/viewgate-' | xargs -r rm -rf
	@rm -rf .cache .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

system-packages:
	@tools/system-packages $(PYTHON)

.venv/ready: requirements/dev.txt pyproject.toml tools/make-venv
	@tools/make-venv $(PYTHON)
