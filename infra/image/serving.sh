#!/bin/sh
# Installs what serves models of one framework: the packages of requirements.serving.lock without those of the other frameworks.
# usage: serving.sh tensorflow|pytorch|lightgbm [INDEX], an index that has PyTorch's CPU build.
set -eu
framework=$1 index=${2:-}
# Of PyTorch alone; Triton compiles models in training, on GPUs.
torch='torch|triton|cuda-[^ ]*|nvidia-[^ ]*|mpmath|networkx|sympy'
case $framework in
  tensorflow) without="$torch|lightgbm" ;;
  lightgbm) without=$torch ;;
  pytorch) without='triton|lightgbm' ;;
  *) echo "FRAMEWORK=$framework: must be tensorflow, pytorch or lightgbm" >&2; exit 2 ;;
esac
# A package and its hashes are one paragraph: a line, and the indented lines after it.
awk -v without="^($without)==" '/^[^ ]/ {skip = $0 ~ without} !skip' requirements.serving.lock >/tmp/serving.lock
if [ "$framework" = pytorch ] && [ -n "$index" ]; then ./without-cuda.sh /tmp/serving.lock "$index"
else uv pip sync --require-hashes --compile-bytecode /tmp/serving.lock; fi
rm -f /tmp/*.lock
