# make train [ARGS="--config … --section.key value"]   trains; without ARGS the pocket world on this machine's CPU
# make report [ARGS="RUN …"]                          one HTML page of a run, the newest one without ARGS, or of several
# make serve [ARGS="RUN"]                              lets the newest run answer, in the browser and by OpenAI's API
# make compare [ARGS="STUDY.toml"]                     runs a study of several methods, the pocket study without ARGS
# make bench [ARGS=NAME]                             measures speed and writes docs/performance.md
# make test [WORKERS=2]                               all tests, two files at a time
# All do all set-up (see scripts/setup.sh). One thread a process: the parts share the cores among themselves.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
BIN := .venv/bin
# A file of tests is one process's: its tests may share a Ray. Each process needs a core and up to 10 GB.
# Many an image forbids Python to write bytecode; then each process would rewrite the asserts of all tests anew.
TESTS = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(or $(WORKERS),2) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: train serve report compare test check format setup setup-gpu lock mlflow audit doctor chaos bench

train: setup
	$(BIN)/python workflows/train.py $(ARGS)

report: setup
	$(BIN)/python workflows/report.py $(ARGS)

# The newest run answers, in the browser and by OpenAI's API: make serve [ARGS="RUN --serve.port 8080"]
serve: setup
	$(BIN)/python workflows/serve_agent.py $(ARGS)

compare: setup
	$(BIN)/python workflows/compare.py $(or $(ARGS),workflows/studies/pocket.toml)

test: setup
	$(TESTS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TESTS)

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Known vulnerabilities of the locked packages; needs the network
audit: setup
	@scripts/audit.sh $(ARGS)

doctor: setup
	$(BIN)/python workflows/doctor.py $(ARGS)

# Kills parts of a run of 50 steps at random; passes if it trains as many questions as an unhurt one.
chaos: setup
	$(BIN)/python -m benchmarks.chaos $(ARGS)

# Speed and memory against goals and peers, into docs/performance.md; all of it takes some minutes of CPU
bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

# MLflow on all runs, on this machine alone: make mlflow [RUNS=FOLDER] [PORT=5001]
mlflow: export RUNS ?= runs
mlflow: setup
	@$(BIN)/python -m calibadv.tracking.pages "$$RUNS" --port $(or $(PORT),5000)

setup:
	@scripts/setup.sh

# For one machine with NVIDIA GPUs, in place of the CPU stack; every other target then runs in it (docs/eight-gpus.md)
setup-gpu:
	@scripts/setup.sh gpu

# Resolves again. torch keeps no hash: its CPU build is not the same file on every index.
lock:
	$(BIN)/uv pip compile pyproject.toml --extra cpu --extra dev --python-version 3.11 --upgrade \
		--python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate --no-emit-find-links \
		--custom-compile-command "make lock" -o requirements-cpu.lock
	$(BIN)/python scripts/drop_torch_hash.py requirements-cpu.lock
