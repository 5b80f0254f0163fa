"""Debian 13 with Python 3.13: a new clone installs without overrides and passes `make test`; its wheel and sdist install."""
