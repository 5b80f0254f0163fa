#!/bin/bash
# Makes a base image from Debian's packages, for machines that reach no registry of images (our CI). Needs podman, mmdebstrap.
set -euo pipefail
name=${1:-python:3.13-slim-trixie}
# Debian 13's Python is 3.13, Debian 12's is 3.11.
release=${name##*-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mmdebstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates "$release" "$work/root.tar" ${DEBIAN_MIRROR:-} >&2
podman import --quiet --change "CMD [\"/usr/bin/python3\"]" "$work/root.tar" "$name"
