# One image for every host of a run:
#   docker build --build-arg EXTRA=tpu -t vmamba_jax:tpu .          (Cloud TPU)
#   docker build --build-arg EXTRA=cuda13 -t vmamba_jax:cuda .      (NVIDIA, driver >= 580, with the NVIDIA Container Toolkit)
#   docker run --rm --gpus all --ipc host -v /data:/data -v /runs:/runs vmamba_jax:cuda \
#       python -m experiments.train --config configs/imagenet.py:recipe=singh --config.data.root=/data/imagenet --workdir /runs/singh
FROM python:3.13-slim
ARG EXTRA=tpu
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /vmamba_jax
# The packages first: a change of the code does not install them again.
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY vmamba_jax/version.py vmamba_jax/version.py
RUN pip install -c constraints.txt ".[${EXTRA}]" && pip uninstall --yes vmamba_jax
COPY . .
RUN pip install --no-deps -e . && python -c "import vmamba_jax, experiments.train"
STOPSIGNAL SIGTERM
CMD ["python", "-m", "experiments.train", "--help"]
