#!/bin/bash
# Chooses the interpreter and the lock for this machine: prints the lock and the interpreter on one line, the reason on standard error.
# TFX 1.21's own set of packages has wheels for glibc 2.39 and later (3.12, 3.13) and macOS on arm64; older systems need overrides, which
# hold for 3.11.
# usage: environment.sh [INTERPRETER]; an empty one is none.
set -euo pipefail
NEW=requirements.glibc239.lock OLD=requirements.lock named=${1:-}

glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc \([0-9]\)/\1/p') || glibc=
at_least() { [ "$(printf '%s\n%s\n' "$1" "$glibc" | sort -V | head -n 1)" = "$1" ]; }
system=$(uname -sm)
if [ "$system" = "Darwin arm64" ]; then
  platform="macOS on arm64" fitting="3.13 3.12" reason="TFX's own pins install on macOS"
elif ! at_least 2.28; then
  if [ -n "$glibc" ]; then has="glibc $glibc"; else has="no glibc"; fi
  echo "make: this system has $has; the packages need Linux with glibc 2.28 or later, or macOS on arm64: use a later system, or a container of one" >&2
  exit 2
elif at_least 2.39; then
  platform="glibc $glibc" fitting="3.13 3.12 3.11" reason="glibc $glibc is 2.39 or later, so TFX's own pins install"
else
  platform="glibc $glibc" fitting=3.11 reason=
fi
# A shim of pyenv is on the PATH for versions that it does not run: only an answer counts.
version() { "$1" -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

candidates=("$named")
if [ -z "$named" ]; then
  read -ra candidates <<<"$(printf 'python%s ' $fitting)python3"
fi
found=
for candidate in "${candidates[@]}"; do
  of_candidate=$(version "$candidate")
  case " $fitting " in *" ${of_candidate:-none} "*) found=$candidate; break ;; esac
done
if [ -z "$found" ]; then
  if [ -n "$named" ]; then
    why="PYTHON=$named is ${of_candidate:-not a Python with the modules venv and ensurepip}"
  else
    why="none of ${candidates[*]} on the PATH is one with the modules venv and ensurepip"
  fi
  echo "make: $platform needs Python ${fitting// / or }, and $why;" \
    "install one with its venv module (Debian, Ubuntu: apt-get install python3-venv), or name it: make PYTHON=/path/to/python" >&2
  exit 2
fi
if [ "$of_candidate" = 3.11 ]; then
  lock=$OLD why="Python 3.11 has overrides for TFX's pins"
else
  lock=$NEW why=$reason
fi
echo "==> $found (Python $of_candidate) with $lock: $why" >&2
echo "$lock $found"
