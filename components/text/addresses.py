"""Checks addresses of servers."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from urllib.parse import urlsplit


def has_host(uri: str) -> bool:
    """Returns whether the URI of an HTTP server names a host; True for all other URIs."""
    try:
        return not uri.startswith("http") or bool(urlsplit(uri).hostname)
    except ValueError:  # brackets without an IPv6 address
        return False


def is_loopback(uri: str) -> bool:
    """Returns whether a URL's host is the machine that uses it: in a pod, the pod."""
    host = (urlsplit(uri).hostname or "").removesuffix(".")
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")
