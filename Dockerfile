# One image for every stage: `make image`, or
#   docker build --build-arg ACCELERATOR=gpu -t switchyard:0.1.0-gpu .
#
# ACCELERATOR=cpu  PyTorch's CPU build where TORCH_CPU_INDEX names an index that has it (PyPI has none), else that of gpu
# ACCELERATOR=gpu  CUDA libraries from PyPI; the node brings the driver
# ACCELERATOR=tpu  torch_xla and libtpu, with the PyTorch that fits them; they have no wheels for Python 3.13, so that it takes
#                  BASE=python:3.11-slim-bookworm, for whose glibc TFX's pins are overridden (`make image` sets it)
ARG BASE=python:3.13-slim-trixie

# The one package that has no wheel, built where a compiler is; the image itself has none.
FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
ARG ACCELERATOR=cpu
RUN case "${ACCELERATOR}" in cpu|gpu) needed=3.13 ;; tpu) needed=3.11 ;; \
      *) echo "ACCELERATOR=${ACCELERATOR}: must be cpu, gpu or tpu" >&2; exit 2 ;; esac \
 && if [ "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != "$needed" ]; then \
      echo "BASE: ACCELERATOR=${ACCELERATOR} needs Python $needed, see the Dockerfile's first lines" >&2; exit 2; fi
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ python3-dev \
 && rm -rf /var/lib/apt/lists/*
# The system's certificates, so that an authority of your own (mounted at /etc/ssl/certs) is known to pip and uv.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt UV_NO_CACHE=1
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
RUN python3 -m venv --without-pip /opt/switchyard
COPY infra/image/requirements.gpu.lock /tmp/
RUN sed -n '/^pyfarmhash==/,/[^\\]$/p' /tmp/requirements.gpu.lock >/tmp/built.lock \
 && /opt/uv/bin/uv pip install --python /opt/switchyard/bin/python3 --no-deps --require-hashes --compile-bytecode -r /tmp/built.lock

FROM ${BASE}
ARG ACCELERATOR=cpu
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Switchyard" \
      org.opencontainers.image.description="Every stage of a Switchyard pipeline, and any TFX node" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      switchyard.accelerator="${ACCELERATOR}"
# libgomp: TensorFlow's and scikit-learn's threads.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 switchyard \
 && useradd --uid 10001 --gid 10001 --create-home --home-dir /home/switchyard --shell /usr/sbin/nologin switchyard
COPY --from=build /opt/switchyard /opt/switchyard
# The packages change seldom and are gigabytes: layers before ours. A build needs twice the room of all and twice that of the
# largest once more, so there are three.
ARG TORCH_CPU_INDEX=
ARG UV_NO_CACHE=1
ARG VIRTUAL_ENV=/opt/switchyard
ARG SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
COPY infra/image/requirements.*.lock infra/image/packages.sh infra/image/without-cuda.sh /opt/switchyard/src/infra/image/
RUN --mount=type=bind,from=build,source=/opt/uv,target=/opt/uv \
    cd /opt/switchyard/src/infra/image && PATH=/opt/uv/bin:$PATH ./packages.sh cuda "${ACCELERATOR}" "${TORCH_CPU_INDEX}"
RUN --mount=type=bind,from=build,source=/opt/uv,target=/opt/uv \
    cd /opt/switchyard/src/infra/image && PATH=/opt/uv/bin:$PATH ./packages.sh frameworks "${ACCELERATOR}" "${TORCH_CPU_INDEX}"
RUN --mount=type=bind,from=build,source=/opt/uv,target=/opt/uv \
    cd /opt/switchyard/src/infra/image && PATH=/opt/uv/bin:$PATH ./packages.sh rest "${ACCELERATOR}" "${TORCH_CPU_INDEX}"
COPY setup.py README.md pyproject.toml /opt/switchyard/src/
COPY switchyard /opt/switchyard/src/switchyard
COPY components /opt/switchyard/src/components
COPY pipelines /opt/switchyard/src/pipelines
RUN --mount=type=bind,from=build,source=/opt/uv,target=/opt/uv \
    /opt/uv/bin/uv pip install --no-deps --no-build-isolation --compile-bytecode /opt/switchyard/src
# Packages of user code, in versions that leave the others as they are.
ARG DEPENDENCIES=
RUN [ -z "${DEPENDENCIES}" ] \
 || PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 /opt/switchyard/bin/switchyard dependencies add ${DEPENDENCIES}
# KFP starts `python3`; bytecode is there already; caches go where any user may write.
ENV PATH=/opt/switchyard/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    KERAS_HOME=/tmp/keras \
    MLFLOW_DISABLE_TELEMETRY=true \
    TF_CPP_MIN_LOG_LEVEL=2
USER 10001:10001
WORKDIR /tmp
# Last, so that another commit of the same files is no other layer.
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
HEALTHCHECK --interval=1h --timeout=2m --retries=1 CMD ["python3", "-m", "switchyard.pipelines.runners.kubeflow.task.image_check"]
CMD ["python3", "-m", "switchyard.pipelines.runners.kubeflow.task.image_check"]
