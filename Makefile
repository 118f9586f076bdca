# Everything needs only make, git and Python 3.11 or later; the rest is set up on first use.

PORT ?= 8000
STATE_DIR ?= var
# A process of the tests that ends is named at once: with another in its place all would wait for it.
PYTEST_ARGS ?= -n 6 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
LOCK_ARGS ?=
BENCH_ARGS ?= --profile
TOKEN ?= nss
SECONDS ?= 60
MINUTES ?= 15
KILLS ?= 50
KEYS ?= 1000000
EXAMPLES ?= 50
SITE ?= site
export PORT STATE_DIR

BIN := .venv/bin

# What is claimed of any token: each algorithm on the wire, attributes, known answers, lives.
ON_ANY := $(addprefix tests/token/test_,attributes.py known_answers.py life.py) \
	$(addprefix tests/http/test_,interoperation.py rfc_messages.py raw_signatures.py) \
	tests/services/test_other_tokens.py

.DEFAULT_GOAL := help
.PHONY: help run test test-on check token load faults fuzz soak kills million warm oracle bench pages site release lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

run: ## Serve on 127.0.0.1 with a development token: [PORT=8000] [STATE_DIR=var]
	@scripts/setup requirements.lock
	@exec $(BIN)/jose-hsm dev --port $(PORT) --state-dir $(STATE_DIR)

# Where that is set, each process of the tests would compile pytest, and what it loads, again.
test test-on check: export PYTHONDONTWRITEBYTECODE =

test: ## Run the tests on a token of their own: [PYTEST_ARGS=-n 6]
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m pytest $(PYTEST_ARGS)

test-on: ## Run what is claimed of any token on one: TOKEN=nss|kryoptic|kryoptic-pqc|opencryptoki|tpm|p11-kit
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m pytest --token $(TOKEN) $(PYTEST_ARGS) $(ON_ANY)

check: ## Lint, formatting, types, the direction of imports, generated files
	@scripts/setup requirements-test.lock
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	scripts/swagger-ui --check
	$(BIN)/python -m pytest -q tests/unit/test_boundary.py tests/documents/test_openapi.py

token: ## Make a token of another make to play with: TOKEN=nss|kryoptic|kryoptic-pqc|opencryptoki|tpm|p11-kit|softhsm [STATE_DIR=var]
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m scripts.make_token $(TOKEN) $(STATE_DIR)/$(TOKEN)

load: ## Create, use and destroy keys from 16 clients: [SECONDS=60]
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m scripts.trials.mixed_load --seconds $(SECONDS)

faults: ## Run all fault tests, and the long forms of all others, and hold to all promised seconds
	@scripts/setup requirements-test.lock
	@$(BIN)/python -m pytest --promised -m "long or not long" tests/faults
	@exec $(BIN)/python -m pytest --promised -m "long or promise or hypothesis" tests --ignore tests/faults

fuzz: ## Ask everything that docs/openapi-strict.json permits, in each role: [EXAMPLES=50]
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m scripts.trials.fuzz --examples $(EXAMPLES)

soak: ## Use keys while everything fails at random; nothing may be wrong or lost: [MINUTES=15]
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m scripts.trials.soak --minutes $(MINUTES)

kills: ## Kill workers while keys are created; nothing may be lost or left: [KILLS=50]
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m scripts.trials.kill_workers --kills $(KILLS)

million: ## Make keys that the registry keeps, and see what they cost: [KEYS=1000000] [URL=postgresql+psycopg://…] [OUT=docs/benchmarks] [STATE=… where they stay]
	@scripts/setup $(if $(OUT),requirements-bench.lock,requirements-test.lock)
	@exec $(BIN)/python -m scripts.trials.million --keys $(KEYS) $(if $(URL),--url $(URL)) $(if $(OUT),--out $(OUT)) $(if $(STATE),--state $(STATE))

warm: ## Compare one encryption with 10 and with 2,000 keys on the token
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m scripts.trials.warm_cost

oracle: ## Compare the times of bad padding and bad tag
	@scripts/setup requirements-test.lock
	@exec $(BIN)/python -m scripts.trials.padding_oracle

bench: ## Write docs/benchmarks, on a machine that does nothing else: [BENCH_ARGS=--short]
	@scripts/setup requirements-bench.lock
	@exec $(BIN)/python -m scripts.bench $(BENCH_ARGS)

pages: ## Write docs/openapi.json and its strict form, docs/api.md, docs/errors.md and the manual page from the code
	@scripts/setup requirements-test.lock
	@$(BIN)/python -m scripts.openapi

site: ## Write site, the documents as pages to read: [SITE=site]
	@scripts/setup requirements-release.lock
	@scripts/site $(SITE)

release: ## Write dist from what is committed: the wheel, its bill of materials, digests
	@scripts/setup requirements-release.lock
	@scripts/release

lock: ## Write the lock files from pyproject.toml: [LOCK_ARGS=--upgrade]
	@scripts/setup requirements.lock
	@scripts/lock $(LOCK_ARGS)

clean: ## Remove the virtual environment and caches; keys in STATE_DIR stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site *.egg-info
	rm -rf tests/node/node_modules
	find app deploy hsm scripts tests -name __pycache__ -prune -exec rm -rf {} +
