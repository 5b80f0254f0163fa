"""Defines the config section `serving.infra_validation`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from switchyard.components.config import Number, Positive, Section


class InfraValidationConfig(Section):
    """Serve each candidate before promotion and compare its answers with the offline predictions.

    Attributes:
        rows: rows of the held-out split to send over HTTP.
        startup_seconds: seconds until the server must be ready.
    """

    rows: Positive = 200
    startup_seconds: Annotated[Number, Field(gt=0)] = 120.0


class InfraValidationSettings(InfraValidationConfig):
    """The stage's settings: its config section and Switchyard's version."""

    version: str = ""
