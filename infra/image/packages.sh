#!/bin/sh
# Installs the lock's packages for an accelerator, a layer at a time: cuda, frameworks, then rest.
# usage: packages.sh cuda|frameworks|rest cpu|gpu|tpu [INDEX], an index that has PyTorch's CPU build.
set -eu
layer=$1 accelerator=$2 index=${3:-}
if [ "$accelerator" = tpu ]; then lock=requirements.tpu.lock; else lock=requirements.gpu.lock; fi
if [ "$accelerator" != cpu ]; then index=; fi

if [ "$layer" = rest ]; then
  if [ -n "$index" ]; then ./without-cuda.sh $lock "$index"; else uv pip sync --require-hashes --compile-bytecode $lock; fi
  mkdir -p /opt/switchyard/share/switchyard && cp $lock /opt/switchyard/share/switchyard
  exit
fi
case $layer in
  cuda) names='triton|nvidia-[^ ]*|cuda-[^ ]*' ;;
  frameworks) names='tensorflow|torch|libtpu' ;;
  *) echo "$layer: must be cuda, frameworks or rest" >&2; exit 2 ;;
esac
if [ -n "$index" ]; then names=tensorflow; fi
# A package and its hashes are one paragraph: a line, and the indented lines after it.
awk -v names="^($names)==" '/^[^ ]/ {wanted = $0 ~ names} wanted' $lock >/tmp/layer.lock
if [ -s /tmp/layer.lock ]; then uv pip install --no-deps --require-hashes --compile-bytecode -r /tmp/layer.lock; fi
rm /tmp/layer.lock
