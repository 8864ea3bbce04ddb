# The inference worker with vLLM, for GPUs: torch and CUDA's libraries, no Kafka.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements/bootstrap.txt requirements/worker-vllm.txt requirements/
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/bootstrap.txt \
 && python -m venv --without-pip /opt/reviewmesh \
 && /opt/tools/bin/uv pip install --no-cache --require-hashes --only-binary :all: \
      --compile-bytecode --python /opt/reviewmesh/bin/python -r requirements/worker-vllm.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY protos protos
COPY services/reviewmesh_kit services/reviewmesh_kit
# Training and evaluation, inference-worker/reviewmesh_models, stay out: serving needs neither.
COPY inference-worker/reviewmesh_worker inference-worker/reviewmesh_worker
RUN . /opt/tools/bin/activate \
 && uv build --no-cache --wheel --no-build-isolation --out-dir dist . \
 && uv pip install --no-cache --no-deps --compile-bytecode \
      --python /opt/reviewmesh/bin/python dist/*.whl

FROM ${PYTHON_IMAGE}
# A compiler is part of what runs: Triton builds the launchers of its kernels where it meets the GPU.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/* \
 && pip uninstall --yes setuptools wheel pip \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin reviewmesh \
 && install --directory --owner 10001 /var/cache/reviewmesh
COPY --from=build /opt/reviewmesh /opt/reviewmesh
# What is compiled or derived goes to one folder, to be a volume: the next start has it, and it must
# not be /tmp, from which a container may not load libraries.
ENV PATH=/opt/reviewmesh/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/cache/reviewmesh \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/reviewmesh/inductor \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    REVIEWMESH_WORKER__ENGINE=vllm \
    REVIEWMESH_WORKER__HOST=0.0.0.0 \
    REVIEWMESH_WORKER__PORT=50051 \
    REVIEWMESH_HTTP__HOST=0.0.0.0 \
    REVIEWMESH_HTTP__PORT=9100
EXPOSE 50051 9100
USER 10001
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9100/healthz', timeout=3)"]
CMD ["python", "-m", "reviewmesh_worker"]
