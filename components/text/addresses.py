"""Checks addresses of servers."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from urllib.parse import urlsplit


def is_loopback(uri: str) -> bool:
    """Returns whether a URL's host is the machine that uses it: in a pod, the pod."""
    host = urlsplit(uri).hostname or ""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")
