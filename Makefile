# One command each: make setup | demo | test | check | lint | bench. They run on Debian or Ubuntu with Python >= 3.10.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_FOR_TESTS := $(VENV)/.ready-for-tests
DEMO := outputs/demo
# MobileSAM with its official weights. 12 x 12 points per window instead of 32 x 32: a quarter of the time, and the same
# F1 on these six events within 0.001 (docs/results.md).
DEMO_SAM := --device cpu --sam-model-type vit_t
DEMO_POINTS := ANOMALYCD_STAGE1_SAM_PARAMS='{"points_per_side": 12}'

.PHONY: setup demo test check lint bench clean

setup: $(READY)

$(READY): requirements.txt requirements-report.txt requirements-stac.txt setup.sh
	./setup.sh $(PYTHON) $(VENV)
	touch $@

$(READY_FOR_TESTS): $(READY) requirements-ray.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-ray.txt -r requirements-dev.txt
	touch $@

# Six synthetic events on the CPU: numbers to try the program with, not to publish.
demo: $(READY)
	$(BIN)/python -m demo.make_events $(DEMO)/events
	$(DEMO_POINTS) $(BIN)/python run.py --stage all --no-skip-existing-stage1 --explain $(DEMO_SAM) \
		--data-root $(DEMO)/events --stage1-root $(DEMO)/stage1 --stage2-root $(DEMO)/stage2
	$(BIN)/python run_eval.py --data-root $(DEMO)/events --result-root $(DEMO)/stage2
	for event in $(DEMO)/events/*/; do event=$$(basename $$event); $(BIN)/python run_report.py \
		--figure $$event $(DEMO)/pictures/$$event.png --data-root $(DEMO)/events \
		--stage1-root $(DEMO)/stage1 --result-root $(DEMO)/stage2 || exit 1; done
	$(BIN)/python run_report.py --data-root $(DEMO)/events --stage1-root $(DEMO)/stage1 --result-root $(DEMO)/stage2 \
		--output $(DEMO)/report
	@echo "Pictures, one per event (all dates, maps, label and result): $(CURDIR)/$(DEMO)/pictures"
	@echo "Report, for any browser: $(CURDIR)/$(DEMO)/report/index.html"

# One process per core, at most four, as each takes up to 2 GB of memory; it takes whole files in order, the slow ones
# early. One thread of torch each.
PYTEST := $(BIN)/python -m pytest --numprocesses $(shell nproc) --maxprocesses 4 --dist loadfile
test check: export OMP_NUM_THREADS := 1
test check: export PYTHONDONTWRITEBYTECODE :=  # hundreds of scripts are started
test: $(READY_FOR_TESTS)
	$(PYTEST) --no-loadscope-reorder

# For the moment before a commit: lint, types, and the tests that are quick and start no script, browser or cluster.
check: lint
	$(PYTEST) -m "not slow"

lint: $(READY_FOR_TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Against the literal method, and workers against one, on this machine's CPU: a few hours. docs/benchmarks.md has the
# commands for a GPU.
bench: $(READY_FOR_TESTS)
	$(BIN)/python -m benchmarks.bench_pipeline --size 1024
	$(BIN)/python -m benchmarks.bench_pipeline --size 2048
	$(BIN)/python -m benchmarks.bench_pipeline --size 1024 --model vit_b --random
	$(BIN)/python -m benchmarks.bench_waterfall --size 2048 --model vit_demo
	$(BIN)/python -m benchmarks.bench_raster --megapixels 1 4 16 --model vit_demo
	$(BIN)/python -m benchmarks.bench_host
	$(BIN)/python -m benchmarks.bench_host --device-seconds 2.0 0.5 --events 8
	$(BIN)/python -m benchmarks.bench_stages
	$(BIN)/python -m benchmarks.bench_clouds
	$(BIN)/python -m benchmarks.bench_footprints
	$(BIN)/python -m benchmarks.bench_dates
	$(BIN)/python -m benchmarks.bench_overlap
	$(BIN)/python -m benchmarks.bench_scaling real
	$(BIN)/python -m benchmarks.bench_scaling simulated
	$(BIN)/python -m benchmarks.bench_scaling driver

clean:
	rm -rf $(VENV) $(DEMO)
