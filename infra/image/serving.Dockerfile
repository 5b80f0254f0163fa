# The image that serves models of one framework: `make image-serving FRAMEWORK=pytorch`, or
#   docker build --file infra/image/serving.Dockerfile --build-arg FRAMEWORK=pytorch -t switchyard-serving:0.1.0-pytorch .
#
# FRAMEWORK=tensorflow|lightgbm  TensorFlow for CPUs, which runs the transform graph of every bundle; no CUDA
# FRAMEWORK=pytorch              PyTorch with CUDA libraries beside it, or its CPU build where TORCH_CPU_INDEX names an index
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
# The system's certificates, so that an authority of your own (mounted at /etc/ssl/certs) is known to pip.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}" \
 && python3 -m venv --without-pip /opt/switchyard

FROM ${BASE}
ARG FRAMEWORK=tensorflow
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Switchyard serving" \
      org.opencontainers.image.description="switchyard serve for models of one framework" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      switchyard.serves="${FRAMEWORK}"
# libgomp: LightGBM's, TensorFlow's and scikit-learn's threads.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 switchyard \
 && useradd --uid 10001 --gid 10001 --create-home --home-dir /home/switchyard --shell /usr/sbin/nologin switchyard
# Podman 4.3 mounts a stage that comes from its cache only if something is copied from it, too.
COPY --from=build /opt/switchyard /opt/switchyard
ARG TORCH_CPU_INDEX=
COPY infra/image/requirements.serving.lock infra/image/serving.sh infra/image/without-cuda.sh /opt/switchyard/src/infra/image/
RUN --mount=type=bind,from=build,source=/opt/uv,target=/opt/uv \
    export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_NO_CACHE=1 VIRTUAL_ENV=/opt/switchyard PATH=/opt/uv/bin:$PATH \
 && cd /opt/switchyard/src/infra/image \
 && ./serving.sh "${FRAMEWORK}" "${TORCH_CPU_INDEX}"
COPY setup.py README.md pyproject.toml /opt/switchyard/src/
COPY switchyard /opt/switchyard/src/switchyard
COPY components /opt/switchyard/src/components
COPY pipelines /opt/switchyard/src/pipelines
RUN --mount=type=bind,from=build,source=/opt/uv,target=/opt/uv \
    UV_NO_CACHE=1 VIRTUAL_ENV=/opt/switchyard /opt/uv/bin/uv pip install --no-deps --no-build-isolation --compile-bytecode /opt/switchyard/src
ENV PATH=/opt/switchyard/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    MLFLOW_DISABLE_TELEMETRY=true \
    TF_CPP_MIN_LOG_LEVEL=2 \
    SWITCHYARD_SERVES=${FRAMEWORK}
USER 10001:10001
WORKDIR /tmp
# Last, so that another commit of the same files is no other layer.
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
CMD ["switchyard", "serve", "--help"]
