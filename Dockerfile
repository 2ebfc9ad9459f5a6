# One image for every role: `docker build -t touchfold .`, then a command such as `worker`. See docs/cluster.md.
FROM node:22-slim AS browser
WORKDIR /build
COPY tools/analytics_js.sh ./tools/
RUN bash tools/analytics_js.sh && mkdir -p infra/drivers/http/analytics_js

FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --uid 10001 --create-home touchfold \
 && install --directory --owner touchfold /data /archive

WORKDIR /opt/touchfold
COPY requirements.lock ./
RUN pip install --require-hashes --no-deps --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY schemas ./schemas
COPY projections ./projections
COPY ingest ./ingest
COPY processors ./processors
COPY query ./query
COPY infra ./infra
COPY --from=browser /build/infra/drivers/http/analytics_js ./infra/drivers/http/analytics_js
RUN pip install --no-deps --no-build-isolation .

USER touchfold
ENV TOUCHFOLD_DATA=/data TOUCHFOLD_HOST=0.0.0.0 TOUCHFOLD_PROBE_PORT=8710
EXPOSE 8700
VOLUME ["/data"]
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8710/ready', timeout=5)"]
ENTRYPOINT ["touchfold"]
CMD ["up"]
