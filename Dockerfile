# docker build -t bita-serve:cpu .
#
#   TORCH_INDEX  package index that PyTorch comes from, if not pip's own. On x86-64 pip's own has the
#                CUDA build, which runs on CPUs too; the index of the CPU wheels, as PyTorch's
#                installation page names it, makes the cpu image gigabytes smaller
#   TORCH        what is installed for PyTorch
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS dependencies
ARG TORCH=torch
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/bita/bin:$PATH
# TORCH names the version.
# hadolint ignore=DL3013
RUN python -m venv /opt/bita \
    && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
WORKDIR /src
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && pip install -r requirements.txt

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON_VERSION}-slim AS base
# The compiler makes the kernels for the processor, or the GPU, that a container finds.
# Debian keeps one version of a package at a time: a pinned one would be gone with the next fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
# The home is the one place that is written to: measured step costs and compiled kernels.
RUN groupadd --gid 10001 bita \
    && useradd --uid 10001 --gid 10001 --home-dir /var/cache/bita --no-create-home bita \
    && install --directory --owner bita --group bita /var/cache/bita

FROM base
COPY --from=dependencies /opt/bita /opt/bita
ENV PATH=/opt/bita/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/var/cache/bita \
    XDG_CACHE_HOME=/var/cache/bita \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/bita/inductor \
    TRITON_CACHE_DIR=/var/cache/bita/triton \
    HF_HUB_OFFLINE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    BITA_HOST=0.0.0.0
# A layer of its own, so that a change of source does not ship the dependencies again.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="BiTA Serve" \
      org.opencontainers.image.description="OpenAI-compatible inference server with lossless speculation" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-SA-4.0"
# Writable where the root is not: torch makes a folder in it as it starts.
VOLUME /var/cache/bita
USER 10001:10001
WORKDIR /var/cache/bita
EXPOSE 8000
STOPSIGNAL SIGTERM
# A large model takes minutes to load: until then it is starting, not unhealthy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('BITA_PORT', '8000')}/health/ready\", timeout=4)"]
ENTRYPOINT ["bita"]
CMD ["serve"]
