# One image for every command: `viewgate` has them all, `demo` also those that publish to Kafka (seed, traffic, the sink).

# the Python that the tests run on; 3.12 and 3.13 do as well
ARG PYTHON=3.11.16

FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements/ requirements/
# what runs in its own environment; what builds, from the same lock, in another
RUN python -m venv /opt/viewgate \
    && /opt/viewgate/bin/pip install -q --require-hashes -r requirements/run.txt \
    && awk '/^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ {on = 1} on; !/\\$/ {on = 0}' requirements/dev.txt >build.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install -q --require-hashes -r build.txt
COPY . .
RUN /opt/build/bin/python -m hatchling build -t wheel -d /wheel \
    && /opt/viewgate/bin/pip install -q --no-deps /wheel/*.whl

FROM build AS build-demo
RUN awk '/^confluent-kafka==/ {on = 1} on; !/\\$/ {on = 0}' requirements/dev.txt >demo.txt \
    && /opt/viewgate/bin/pip install -q --require-hashes -r demo.txt

FROM python:${PYTHON}-slim-bookworm AS base
LABEL org.opencontainers.image.title="viewgate" \
      org.opencontainers.image.description="A GraphQL read gateway over materialized views" \
      org.opencontainers.image.licenses="Apache-2.0"
# nothing is written: modules were compiled when they were installed
ENV PATH=/opt/viewgate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# the current folder, where a view of your own is found
WORKDIR /views
USER 10001:10001
EXPOSE 8000
# the gateway's; other commands have no HTTP, and are run with --no-healthcheck
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os; from http.client import HTTPConnection as C; c = C('127.0.0.1', int(os.environ.get('VIEWGATE_PORT') or 8000), timeout=2); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["viewgate"]
CMD ["serve", "--host", "0.0.0.0"]

FROM base AS demo
COPY --from=build-demo /opt/viewgate /opt/viewgate

# the last one is what `docker build .` makes
FROM base AS viewgate
COPY --from=build /opt/viewgate /opt/viewgate
