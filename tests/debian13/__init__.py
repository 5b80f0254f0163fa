"""Debian 13 with Python 3.13: a new clone installs without overrides, passes its unit tests and trains in both frameworks."""
