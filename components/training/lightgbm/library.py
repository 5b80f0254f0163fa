"""Imports LightGBM, an extra, with threads that sleep while they wait.

Its OpenMP threads otherwise spin: on two cores that other processes use as well, 100 rounds took 45 s instead of 3.
"""

from __future__ import annotations

import os

from switchyard.components.errors import UserError, first_line

_POLICY = "OMP_WAIT_POLICY"  # read once, when OpenMP is loaded
_given = os.environ.get(_POLICY)
os.environ.setdefault(_POLICY, "PASSIVE")
try:
    import lightgbm
except (ImportError, OSError) as error:
    raise UserError(
        f"lightgbm: cannot be imported ({first_line(error)}); install the extra: pip install 'switchyard[lightgbm]'. It "
        "also needs the system's libgomp1"
    ) from None
finally:
    if _given is None:
        del os.environ[_POLICY]

__all__ = ["lightgbm"]
