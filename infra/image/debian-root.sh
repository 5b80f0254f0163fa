#!/bin/bash
# Makes a root of Debian 13 (glibc 2.41, Python 3.13), in which `make` installs the lock without overrides. Needs mmdebstrap, as root.
# usage: debian-root.sh FOLDER [COMMAND]: makes FOLDER if it is not there, then runs COMMAND in it with this repository at /src.
# With UV_CACHE_DIR, environments in it are links into that cache, which is mounted at /cache.
set -euo pipefail
root=$1 repository=$(cd "$(dirname "$0")/../.." && pwd) cache=${UV_CACHE_DIR:-}
packages=python3,python3-venv,python3-pip,python3-dev,ca-certificates,make,g++,git,libgomp1
# Without these some of the tests are skipped, or fail.
packages+=,chromium,kubernetes-client,openssl,procps
[ -d "$root/usr" ] || mmdebstrap --variant=minbase --include=$packages trixie "$root" ${DEBIAN_MIRROR:-} >&2
[ $# -gt 1 ] || exit 0
for file in resolv.conf hosts ssl/certs/ca-certificates.crt; do [ ! -e "/etc/$file" ] || cp -L "/etc/$file" "$root/etc/$file"; done
mkdir -p "$root/src" "$root/cache"
[ -z "$cache" ] || mkdir -p "$cache"
# Mounts of a namespace of their own end with the command.
exec unshare --mount bash -euc '
  mount --bind "$1" "$0/src"; mount -t proc proc "$0/proc"
  for folder in dev sys; do mount --rbind "/$folder" "$0/$folder"; done
  given=(HOME=/root PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8)
  for name in SSL_CERT_FILE PIP_CERT; do given+=("$name=/etc/ssl/certs/ca-certificates.crt"); done
  [ -z "$3" ] || { mount --bind "$3" "$0/cache"; given+=(UV_CACHE_DIR=/cache UV_LINK_MODE=symlink); }
  exec chroot "$0" /usr/bin/env -i "${given[@]}" bash -c "cd /src; $2"' \
  "$root" "$repository" "$2" "$cache"
