"""The config's `signing` section."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from switchyard.components.config import Names, Section


class SigningConfig(Section):
    """A signature of every registered version, made offline (the extra `signing`). Short form in YAML: the key's path.

    Attributes:
        key: file with the private key, PEM: an elliptic curve key on P-256, P-384 or P-521, outside the workspace. It is read
            where the registry stage runs, and never copied. The password of an encrypted one is read from
            `SWITCHYARD_SIGNING_PASSWORD`. On Kubeflow: its path in the pod, see `secret_files`.
        certificate: certificate of the key, PEM, which the signature then contains; the key must not be encrypted.
        chain: certificates between `certificate` and the root that verifies, PEM.
    """

    key: str
    certificate: str | None = None
    chain: Names = ()

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"key": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> SigningConfig:
        if not self.key.strip():
            raise ValueError("key: is empty; give the file with the private key, or remove signing")
        if self.chain and self.certificate is None:
            raise ValueError("chain: belongs to a certificate; set signing.certificate, or remove it")
        return self
