# Each target does its own set-up and says what it is doing; a second run does
# nothing twice. Variables, given as `make run LISTEN=0.0.0.0:8080`:
#   LISTEN       where tenants are served        (127.0.0.1:8080)
#   OPS_LISTEN   metrics, health, readiness      (127.0.0.1:9090)
#   DATA_DIR     what is fetched and made        (.tenantry)
#   BASE_MODEL   a GGUF file or a Hugging Face folder to serve instead; nothing
#                is downloaded then

DATA_DIR ?= .tenantry
export LISTEN OPS_LISTEN DATA_DIR BASE_MODEL

.DEFAULT_GOAL := help
.PHONY: help run test test-engines lint bench soak

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20
	@sed -n 's/^#  /  /p' $(MAKEFILE_LIST)

run: ## Serve four demonstration tenants on one base model
	@exec bash scripts/run.sh

test: ## Run every test, with the stock clients of Python and Node
	@exec bash scripts/test.sh

test-engines: ## Run the driver tests on real vLLM and llama.cpp (5 GB); writes tests/ENGINES.md
	@exec bash scripts/test-engines.sh

lint: ## Check formatting, lints, documentation and scripts
	@exec bash scripts/lint.sh

bench: ## Measure the engine with many adapters; writes load-tests/RESULTS.md
	@exec bash scripts/bench.sh

soak: ## Half an hour of load and trouble; says what is left of it
	@exec bash scripts/soak.sh
