# make serve   set up, prepare the bundled model, start the server        make test   lint, types, imports, all tests
# make demo    score examples/ and print a table                          make help   the rest
SHELL := /bin/bash
PYTHON ?= python3
ENGINE ?= $(shell command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU && echo cuda || echo cpu)
GRM := .venv/bin/grm

.DEFAULT_GOAL := help
TRAINERS := trl verl openrlhf ms-swift clients
.PHONY: help setup serve demo test lint types imports unit fuzz lint-docker openapi lock bench baseline clean \
	test-trainers \
	$(TRAINERS:%=test-trainers-%)

help:
	@echo "make setup        install the $(ENGINE) engine into .venv, as locked (ENGINE=cpu|cuda)"
	@echo "make serve        setup, then a server on http://127.0.0.1:8000 (ARGS='--model ... --port ...')"
	@echo "make demo         score examples/ on a running server, or on one started for it"
	@echo "make test         lint, types, import rules and all tests, the real engine among them"
	@echo "make test-trainers   the reward functions in released trainers, each in .venv-trainers/NAME (test-trainers-trl)"
	@echo "make fuzz         Schemathesis against the OpenAPI document, other cases each time (ARGS='--examples 500 --seed 7')"
	@echo "make bench        benchmarks/serving/engine.py: the server against the raw engine"
	@echo "make baseline     what benchmarks/serving/load.py compares the server with, into .venv-baseline"
	@echo "make openapi      write docs/openapi.json        make lock   write requirements/*.txt"

.venv/.$(ENGINE): requirements/$(ENGINE).txt requirements/install.sh pyproject.toml
	@PYTHON=$(PYTHON) requirements/install.sh $(ENGINE)
	@touch $@

.venv/.dev: .venv/.$(ENGINE) requirements/dev-$(ENGINE).txt
	@requirements/install.sh dev-$(ENGINE)
	@touch $@

setup: .venv/.$(ENGINE)

serve: setup
	@$(GRM) serve $(ARGS)

demo: setup
	@$(GRM) demo examples $(ARGS)

test: lint types imports lint-docker unit

lint: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/.dev
	.venv/bin/mypy

imports: .venv/.dev
	.venv/bin/lint-imports

lint-docker: .venv/.dev
	.venv/bin/hadolint Dockerfile
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

unit: .venv/.dev
	.venv/bin/pytest --cov --cov-report=term:skip-covered $(ARGS)

fuzz: .venv/.dev
	.venv/bin/python -m tests.fuzz.campaign $(ARGS)

test-trainers: $(TRAINERS:%=test-trainers-%)

.venv-trainers/%/.installed: requirements/trainers/%.txt requirements/trainer.sh
	@PYTHON=$(PYTHON) requirements/trainer.sh $*
	@touch $@

$(TRAINERS:%=test-trainers-%): test-trainers-%: setup .venv-trainers/%/.installed
	PYTHONPATH=clients:. GRM_CLIENT_TEST_PYTHON=.venv/bin/python .venv-trainers/$*/bin/python -m pytest \
		-c tests/trainers/pytest.ini tests/trainers/test_$(subst -,_,$*).py $(ARGS)

openapi: setup
	$(GRM) openapi > docs/openapi.json

.PHONY: docs
docs: .venv/.dev docs/api.md
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

docs/api.md: docs/api.md.in docs/openapi.json docs/make_api.py
	.venv/bin/python docs/make_api.py

bench: .venv/.dev
	.venv/bin/python -m benchmarks.serving.engine $(ARGS)

# vLLM's own HTTP server, beside the engine of .venv, which both use.
baseline: .venv-baseline/.installed

.venv-baseline/.installed: requirements/baseline.txt .venv/.dev
	.venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --upgrade --target .venv-baseline \
		--requirement requirements/baseline.txt
	@touch $@

lock:
	requirements/lock.sh

clean:
	rm -rf .venv .venv-trainers .venv-baseline .mypy_cache .pytest_cache .ruff_cache .coverage .hypothesis build *.egg-info
