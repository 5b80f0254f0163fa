"""Settings of the ensemble stage."""

from __future__ import annotations

from switchyard.components.config import Section


class EnsembleSettings(Section):
    """The settings of the ensemble stage.

    Attributes:
        version: version of Switchyard.
        bundle: format version of the written bundle.
        dependencies: packages of the user's code, if there is any that makes a member; part of the bundle's requirements.
    """

    version: str
    bundle: int
    dependencies: tuple[str, ...] = ()
