# Every target stands alone: what it needs is built first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
UV := $(BIN)/uv
BENCHMARKS := large_file small_files cold_files slow_readers relay relay_memory redirects presign reservations decisions \
	catalogue archive order_archive large_order
# Trust what this machine trusts: package indexes behind a company's own certificate work, too.
export UV_SYSTEM_CERTS ?= 1
# Whatever the shell says: hundreds of processes are started, and each would compile all that it imports again.
export PYTHONDONTWRITEBYTECODE :=
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml

.PHONY: demo test test-long soak lint types bench bench-all lock clean

demo: $(VENV)/.demo-installed ## a small real catalogue, served with nothing but Python
	@$(BIN)/gateway demo $(ARGS)

test: $(VENV)/.dev-installed ## the tests, against real PostgreSQL and Valkey
	$(BIN)/pytest $(ARGS)

test-long: $(VENV)/.dev-installed ## the same with more examples, and all that is repeated as often as it may be
	GATEWAY_TEST_FULL=1 GATEWAY_TEST_EXAMPLES=20000 $(BIN)/pytest --numprocesses=0 --timeout 600 $(ARGS)

soak: $(VENV)/.dev-installed ## a million raced reservations while processes, replies and Valkey are lost
	$(BIN)/python -m tests.soak $(ARGS)

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev-installed
	$(BIN)/mypy

bench: $(VENV)/.dev-installed ## 1 GiB beside nginx's sendfile; needs nginx, best as root
	$(BIN)/python -m benchmarks.large_file $(ARGS)

bench-all: $(VENV)/.dev-installed ## every benchmark, one after the other; needs nginx and ss, best as root
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name; echo; done

lock: $(UV) ## the lock files anew from pyproject.toml
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra demo -o requirements-demo.lock
	$(COMPILE) --extra demo --group dev -o requirements-dev.lock

clean:
	rm -rf $(VENV)

$(UV):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.demo-installed: requirements-demo.lock pyproject.toml | $(UV)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-demo.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

$(VENV)/.dev-installed: requirements-dev.lock pyproject.toml | $(UV)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.demo-installed
