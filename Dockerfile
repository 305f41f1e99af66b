# TORCH_INDEX picks PyTorch's build. Left empty, pip's own index decides, which for Linux on x86-64
# means CUDA; the index of the CPU wheels makes an image that is gigabytes smaller.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
ARG TORCH=torch
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/bita/bin:$PATH
RUN python -m venv /opt/bita
# Dependencies first: a change of source does not install them again.
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
WORKDIR /src
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && pip install -r requirements.txt
COPY . .
RUN pip install --no-deps .

FROM python:${PYTHON_VERSION}-slim
RUN useradd --create-home --uid 10001 bita
COPY --from=build /opt/bita /opt/bita
ENV PATH=/opt/bita/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    BITA_HOST=0.0.0.0
USER 10001
WORKDIR /home/bita
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('BITA_PORT', '8000')}/health/ready\", timeout=4)"]
ENTRYPOINT ["bita"]
CMD ["serve"]
