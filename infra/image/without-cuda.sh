#!/bin/sh
# Installs a lock without CUDA: PyTorch's CPU build, of the locked version, from an index that has it.
# Its hash cannot be locked (PyPI does not have the file); everything else is checked.
set -eu
lock=$1 index=$2
torch=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$lock")
# A package and its hashes are one paragraph: a line, and the indented lines after it.
awk '/^[^ ]/ {skip = /^(torch|triton|nvidia-[^ ]*|cuda-[^ ]*)==/ && !/^nvidia-ml-py==/} !skip' "$lock" > /tmp/cpu.lock
uv pip sync --require-hashes --compile-bytecode /tmp/cpu.lock
uv pip install --no-deps --compile-bytecode --index "$index" "torch==${torch}+cpu"
