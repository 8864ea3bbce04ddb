# The services of the mesh and its command line: Kafka and gRPC clients, no model, no Java.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements/bootstrap.txt requirements/service.txt requirements/
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements/bootstrap.txt \
 && python -m venv --without-pip /opt/reviewmesh \
 && /opt/tools/bin/uv pip install --no-cache --require-hashes --only-binary :all: \
      --compile-bytecode --python /opt/reviewmesh/bin/python -r requirements/service.txt
# The worker's package stays out: its model alone would double what the project adds.
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY protos protos
COPY schemas schemas
COPY services services
RUN . /opt/tools/bin/activate \
 && uv build --no-cache --wheel --no-build-isolation --out-dir dist . \
 && uv pip install --no-cache --no-deps --compile-bytecode \
      --python /opt/reviewmesh/bin/python dist/*.whl

FROM ${PYTHON_IMAGE}
RUN pip uninstall --yes setuptools wheel pip \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin reviewmesh \
 && install --directory --owner 10001 /var/lib/reviewmesh/slots
COPY --from=build /opt/reviewmesh /opt/reviewmesh
COPY --chmod=0755 deploy/take-slot /usr/local/bin/take-slot
ENV PATH=/opt/reviewmesh/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    REVIEWMESH_HTTP__HOST=0.0.0.0 \
    REVIEWMESH_HTTP__PORT=9100
EXPOSE 9100
USER 10001
# Liveness only: a service that waits for a broker is well and must not be killed for it.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9100/healthz', timeout=3)"]
CMD ["reviewmesh", "--help"]
