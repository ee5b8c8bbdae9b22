# EfficientDet in a container, with the versions of requirements/ (av and tensorboard: the newest):
#   docker build -t effdet_plugin .
#   docker build -t effdet_plugin --build-arg BASE=nvidia/cuda:12.8.0-runtime-ubuntu24.04 \
#       --build-arg TORCH_ARGS='--extra-index-url https://download.pytorch.org/whl/cu128' .
#   docker run --rm -v "$PWD:/work" effdet_plugin train --data DIR          (with --ipc=host: loaders share
#       memory; with --gpus all for GPUs)
# BASE is any Debian or Ubuntu with Python 3.11 or later in its packages. It need not have CUDA: PyTorch's wheels bring it.
ARG BASE=debian:12-slim
FROM ${BASE}

ARG TORCH_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1

RUN apt-get update \
    && apt-get install --no-install-recommends -y python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/effdet_plugin
COPY requirements requirements
COPY tools tools
COPY effdet_plugin effdet_plugin
COPY configs configs
COPY effdet_plugin_command.py setup.py pyproject.toml README.md LICENSE ./
RUN EFFDET_TORCH_PIP_ARGS="${TORCH_ARGS}" bash tools/setup.sh \
    && .venv/bin/python -m pip install --no-cache-dir -r requirements/export.txt av tensorboard

# Data in, results out.
WORKDIR /work
ENTRYPOINT ["/opt/effdet_plugin/.venv/bin/python", "-m", "effdet_plugin"]
CMD ["--help"]
