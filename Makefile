# `make help` is made from the `##` comments below.
.DEFAULT_GOAL := help
.PHONY: help setup demo down test check bench trial test-compose clean
SHELL := /bin/bash
BIN := .venv/bin
DEPTHVAULT := $(BIN)/depthvault
STAMP := .venv/.depthvault-setup
# PYTEST="-k journal" make test
PYTEST ?=

##@ Start here
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z][a-z-]*:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## The whole platform on the bundled simulator, up to a verified archive; stays up
	@$(DEPTHVAULT) demo

down: ## Stop everything that runs from this checkout
	@if [ -x $(DEPTHVAULT) ]; then $(BIN)/python -m depthvault.platform down --all; else echo "nothing runs: not set up yet"; fi

setup: $(STAMP) ## Make .venv from requirements.lock (any Python from 3.11 to 3.13)

$(STAMP): requirements.lock pyproject.toml scripts/setup
	@scripts/setup
	@touch $@

##@ Work on it
test: setup ## All tests, with real servers, on two cores
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST)

check: setup ## Lint, format and types: ruff, mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup ## Benchmarks: what each step costs, beside its alternatives
	@$(BIN)/python -m benchmarks

trial: setup ## A longer run with faults against the simulator's truth
	@$(DEPTHVAULT) trial

test-compose: setup ## Build the image, bring docker-compose.yaml up (needs a Docker engine)
	@$(BIN)/python -m pytest tests/compose -m compose $(PYTEST)

clean: down ## Remove .venv and caches; never data
	@rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
