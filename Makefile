# Everything needs only make, git and Python 3.11 or later; the rest is set up on first use.

PORT ?= 8000
STATE_DIR ?= var
PYTEST_ARGS ?=
LOCK_ARGS ?=
export PORT STATE_DIR

BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run test check lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

run: ## Serve on 127.0.0.1 with a development token: [PORT=8000] [STATE_DIR=var]
	@scripts/setup requirements.lock
	@exec scripts/run

test: ## Run the tests on a token of their own: [PYTEST_ARGS=...]
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m pytest $(PYTEST_ARGS)

check: ## Lint, formatting, types
	@scripts/setup requirements-test.lock
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lock: ## Write the lock files from pyproject.toml: [LOCK_ARGS=--upgrade]
	@scripts/setup requirements.lock
	@scripts/lock $(LOCK_ARGS)

clean: ## Remove the virtual environment and caches; keys in STATE_DIR stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find app deploy hsm scripts tests -name __pycache__ -prune -exec rm -rf {} +
