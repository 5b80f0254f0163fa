"""Checks that the extra `kubeflow`, KFP's SDK, is installed."""

from __future__ import annotations

from importlib.util import find_spec

from switchyard.components.errors import UserError


def require_kfp() -> None:
    """Raises UserError, which names the extra, if KFP's SDK is not installed; imports nothing."""
    missing = [name for name in ("kfp", "kfp_server_api") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"kubeflow: {' and '.join(missing)} not installed; install the extra: pip install 'switchyard[kubeflow]'. "
            "`switchyard run` with the local runner does not need it"
        )
