# The whole vocabulary of this repository; `make` alone lists it.
#
#   ARGS    flags for `run`, the benches and `loadtest`    make run ARGS='--listen 127.0.0.1:8080'
#   SUITES  the suites `test` runs, default all            make test SUITES='js browser'
#   PYTHON  the Python to use                              make test PYTHON=python3.12

CARGO ?= cargo
PYTHON ?= python3
ARGS ?=
SUITES ?=
export CARGO PYTHON

.DEFAULT_GOAL := help
.PHONY: help run test bench bench-kernel bench-peers loadtest lint

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r target text; do printf '%-20s %s\n' "$$target" "$$text"; done

run: ## Start the server with its demonstration pages on 127.0.0.1:9001
	$(CARGO) run --release --package campanile --features cli --bin campanile -- --dev $(ARGS)

test: ## Install what the tests need, once, and run all of them
	@tests/setup $(SUITES)
	@$(PYTHON) tests/run $(SUITES)

bench: ## Run the criterion benches; ARGS is a filter, such as 'mask/'
	$(CARGO) bench --package campanile --all-features --benches -- $(ARGS)

bench-kernel: ## Compare the server's CPU time with what the kernel alone takes
	@$(PYTHON) benches/run kernel $(ARGS)

bench-peers: ## Compare the server's CPU time with other servers'
	@$(PYTHON) benches/run peers $(ARGS)

loadtest: ## Load a running server; without ARGS, echo on 127.0.0.1:9001
	$(CARGO) run --release --package campanile-loadtest -- $(or $(ARGS),echo ws://127.0.0.1:9001/echo)

lint: ## Check formatting, lints, documentation, features, the Rust version and the dependencies
	@tests/setup lint
	@$(PYTHON) tests/lint $(ARGS)
