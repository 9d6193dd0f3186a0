# Everything starts from a fresh clone with Python 3.11+ and make; `make search` and `make test` set up what they need.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: search test chaos fuzz check format lock setup cluster-check cluster-up cluster-down cluster-test cluster-list clean

search: .venv/ready  ## a whole search on the digits that come with scikit-learn
	$(BIN)/python -m tune_cifar.search configs/quickstart.yaml --data digits

# Three at a time, also on two cores: much of a search under test is waiting for its processes to start.
test: .venv/ready  ## the whole test suite
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# SEED=7 hits other searches at other moments; a campaign that was stopped goes on where it was.
SEED ?= 0
chaos: .venv/ready  ## at least 50 faults in many searches, in about 40 minutes
	mkdir -p build
	$(BIN)/python -m tests.chaos --seed $(SEED) --json build/chaos-$(SEED).json

# In proportion to 100, which is what `make test` runs: CASES=1000 is ten times as many, SEED=7 makes others.
CASES ?= 1000
fuzz: .venv/ready  ## some 27,000 damaged or hostile files and flags, in about 10 minutes
	TUNE_CIFAR_FUZZ_CASES=$(CASES) TUNE_CIFAR_FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -n 3 --dist loadfile tests/fuzz

check: .venv/ready  ## lint and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: .venv/bin/uv  ## pin every dependency again
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --quiet --custom-compile-command "make lock" --output-file requirements.lock

setup: .venv/ready

# uv and not pip: pip picks a CPU build of torch on some machines, which torchvision then does not fit.
# Compiled once: where Python may not write bytecode, each process would spend 10 s to compile torch by itself.
.venv/ready: requirements.lock pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(f"error: Python 3.11 to 3.13 is needed, but $(PYTHON) is {v[0]}.{v[1]}. Say which to use: make PYTHON=python3.11 ...") if not (3, 11) <= v <= (3, 13) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# make CLUSTER=other.yaml cluster-up
CLUSTER ?= cluster.yaml
cluster-check: .venv/ready  ## what keeps the machines of cluster.yaml from becoming a cluster
	$(BIN)/python -m tune_cifar.cluster check $(CLUSTER)

cluster-up: .venv/ready  ## check them, and start Ray on all of them
	$(BIN)/python -m tune_cifar.cluster up $(CLUSTER)

cluster-down: .venv/ready  ## end Ray on all of them
	$(BIN)/python -m tune_cifar.cluster down $(CLUSTER)

cluster-test: .venv/ready  ## a real cluster of hosts made of namespaces, in some minutes; as root
	TUNE_CIFAR_CLUSTER_TESTS=1 $(BIN)/python -m pytest -n 0 tests/cluster

cluster-list: .venv/ready  ## the machines that cluster-paperspace.yaml left running, of all clusters
	$(BIN)/python -m tune_cifar.cluster.paperspace

clean:
	rm -rf .venv build ./*.egg-info .mypy_cache .ruff_cache .pytest_cache
