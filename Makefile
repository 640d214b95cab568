# Two commands matter: `make demo` and `make test`. Both set up what is missing first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUIET := --quiet --disable-pip-version-check
PIN := --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make requirements" --quiet
# Tests of a broker wait more than they work: three at a time keep two cores busy. Files in order, so that those of the
# broker, which take longest, begin first.
TOGETHER := --numprocesses 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check bench images requirements clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed .lethe/dist/fetched ## environment, Kafka and registry; takes no time when they are there

demo: setup ## the main job, from supplier files to the researchers' report, compared with the oracle
	$(BIN)/lethe demo

test: setup ## the tests; in containers where a Docker engine runs, else in local processes
	@$(BIN)/python -m infra.images.build --if-engine
	$(BIN)/pytest $(TOGETHER) --durations 15 --durations-min 20

test-all: setup ## those that take minutes, too: every fault, every processor's replay, the bench
	@$(BIN)/python -m infra.images.build --if-engine
	LETHE_THOROUGH=1 $(BIN)/pytest $(TOGETHER) -m ''

check: $(VENV)/.installed ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## throughput, latency, memory: a table and bench.json
	$(BIN)/lethe bench

images: setup ## container images of the broker and the registry, for compose.yaml and the tests
	$(BIN)/python -m infra.images.build

requirements: ## pin requirements.txt anew from pyproject.toml, and what installs it
	$(BIN)/uv pip compile pyproject.toml --extra dev $(PIN) --output-file requirements.txt
	echo uv | $(BIN)/uv pip compile - $(PIN) --output-file infra/installer.txt

clean: ## remove the environment; data and downloads stay in .lethe
	rm -rf $(VENV)

# uv takes a quarter of pip's time. It knows nothing of pip's settings: where an index is set in those, pip goes on.
$(VENV)/.installed: requirements.txt infra/installer.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: $(PYTHON) is not Python 3.11 or later: install one, or name it: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "error: $(PYTHON) cannot make virtual environments (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install $(QUIET) --require-hashes -r infra/installer.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.txt || \
		$(BIN)/pip install $(QUIET) --require-hashes -r requirements.txt
	$(BIN)/pip install $(QUIET) --no-deps --editable .
	@touch $@

.lethe/dist/fetched: infra/broker/pom.xml | $(VENV)/.installed
	$(BIN)/python -m infra.broker.fetch .lethe/dist
	@touch $@
