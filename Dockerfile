# docker build --target cpu -t grm-server:cpu .      docker build --target cuda -t grm-server:cuda .
# docker run -p 8000:8000 -e GRM_AUTH__KEYS=$(openssl rand -hex 32) grm-server:cpu
# In a container the server listens on all addresses. It therefore starts only with keys, or with GRM_AUTH__OPEN=true.
FROM python:3.12-slim AS base
WORKDIR /app
RUN useradd --create-home --uid 1000 grm && mkdir -p /cache && chown grm:grm /cache /app
ENV GRM_HTTP__HOST=0.0.0.0 \
    GRM_CACHE_DIR=/cache \
    HF_HOME=/cache/huggingface \
    PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1
COPY --chown=grm:grm . .
EXPOSE 8000
VOLUME /cache
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]

FROM base AS cuda
# Triton compiles its kernels' launchers with a C compiler.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
USER 1000
RUN requirements/install.sh cuda
CMD ["grm", "serve"]

FROM base AS cpu
# vLLM's CPU kernels bind memory with libnuma.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
USER 1000
RUN requirements/install.sh cpu
CMD ["grm", "serve"]
