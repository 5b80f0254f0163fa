"""Signs and verifies the files of a bundle with `model-signing`, the reference implementation of OpenSSF Model Signing.

A signature covers every file of the MLflow Model's folder, `manifest.json` included, except those that MLflow and Python add
later. It is stored in the folder, so that the library's own command verifies a downloaded version, too. Keys and certificates
only: Sigstore's services, which need a network, are not used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchyard.components.errors import ArgumentError, UserError, first_line
from switchyard.components.process.variables import SIGNING_PASSWORD

if TYPE_CHECKING:
    from switchyard.components.signing.config import SigningConfig  # imports pydantic, which help texts do without

SIGNATURE = "model.sig"
# Not signed: the signature itself, and what MLflow or Python writes into a downloaded folder; a bundle reads none of them.
UNSIGNED = (SIGNATURE, "registered_model_meta", "__pycache__")
_NEXT = "None of its files was opened."


def check_signer(config: SigningConfig) -> str:
    """Returns the SHA-256 of the public key and any certificates, after checking that the private key can sign with them.

    Raises:
        UserError: the extra is not installed, or the key, its password or the certificate cannot be used.
    """
    _signer(config)
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(config.key).read_bytes(), _password())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    certificates = (Path(file).read_bytes() for file in (config.certificate, *config.chain) if file)
    return hashlib.sha256(b"".join([public, *certificates])).hexdigest()


def sign(folder: Path, config: SigningConfig) -> str:
    """Returns the signature of all files of a folder: JSON, a Sigstore bundle.

    Raises:
        UserError: see `check_signer`.
    """
    signer = _signer(config)
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / SIGNATURE
        signer.sign(folder, file)
        return file.read_text(encoding="utf-8")


def verify_signature(folder: Path, key: Path, what: str = "model") -> None:
    """Checks the signature in a folder, and by it all files of the folder.

    Args:
        folder: folder of the MLflow Model.
        key: PEM file with the signer's public key, or with the certificate that its chain ends in.
        what: the model's name in errors.

    Raises:
        UserError: there is no signature, it is another key's, or a file is not as it was signed; no file was opened.
    """
    verifier = _verifier(key)
    signature = folder / SIGNATURE
    if signature.is_symlink() or not signature.is_file():
        raise UserError(
            f"{what}: has no signature ({SIGNATURE}). {_NEXT} Train it again with `signing` in the YAML, or leave out the key."
        )
    try:
        verifier.verify(folder, signature)
    except Exception as error:  # the library raises what its parsers and OpenSSL raise
        reason = first_line(error).rstrip(".") or type(error).__name__
        raise UserError(
            f"{what}: its signature does not verify with {key}: {reason}. {_NEXT} Use the key of its signer, or a version "
            "whose files are as they were signed."
        ) from None


def check_verifier(key: Path, argument: str) -> None:
    """Raises UserError if the file that an argument names holds no public key or certificate, or without the extra."""
    _verifier(key, argument)


def _require(where: str) -> None:
    if importlib.util.find_spec("model_signing") is None:
        raise ArgumentError(where, "model-signing is not installed; install the extra: pip install 'switchyard[signing]'")


def _password() -> bytes | None:
    given = os.environ.get(SIGNING_PASSWORD)
    return given.encode() if given else None


def _signer(config: SigningConfig) -> Any:
    _require("signing")
    from model_signing import hashing, signing

    for name, file in (("key", config.key), ("certificate", config.certificate), *(("chain", c) for c in config.chain)):
        if file is not None and not os.access(file, os.R_OK):
            raise UserError(f"signing.{name}: cannot read {file}; give a PEM file")
    password = _password()
    made = signing.Config()
    # Without the cause: no part of a key may get into a log.
    try:
        # In bytes, whatever the library's annotation says.
        made.use_elliptic_key_signer(private_key=config.key, password=password)
    except TypeError:
        wrong = f"is not encrypted; unset {SIGNING_PASSWORD}" if password else f"is encrypted; set {SIGNING_PASSWORD}"
        raise UserError(f"signing.key: {config.key} {wrong}") from None
    except Exception:  # OpenSSL's errors have many types
        hint = f", or {SIGNING_PASSWORD} is not its password" if password else ""
        raise UserError(
            f"signing.key: {config.key} is no private key in PEM on one of the curves P-256, P-384 and P-521{hint}; make one "
            "with: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
        ) from None
    if config.certificate is not None:
        if password:
            raise UserError("signing.key: model-signing reads no encrypted key with a certificate; remove its password")
        try:
            # The library refuses an empty chain; the certificate once more changes nothing.
            chain = config.chain or (config.certificate,)
            made.use_certificate_signer(private_key=config.key, signing_certificate=config.certificate, certificate_chain=chain)
        except Exception:
            raise UserError(
                f"signing.certificate: {config.certificate} is no PEM certificate of signing.key, or signing.chain holds none; "
                "give the certificate that was issued for this key"
            ) from None
    return made.set_hashing_config(hashing.Config().set_ignored_paths(paths=UNSIGNED, ignore_git_paths=False))


def _verifier(key: Path, argument: str = "verify") -> Any:
    _require(argument)
    from model_signing import hashing, verifying

    try:
        content = key.read_bytes()
    except OSError as error:
        raise ArgumentError(argument, f"cannot read {key}: {error.strerror}; give a PEM file with a public key") from None
    if b"PRIVATE KEY" in content:
        raise ArgumentError(
            argument, f"{key} holds a private key; give the public one: openssl pkey -in {key.name} -pubout -out public.pem"
        )
    made = verifying.Config()
    try:
        if b"BEGIN CERTIFICATE" in content:
            made.use_certificate_verifier(certificate_chain=[key])
        else:
            made.use_elliptic_key_verifier(public_key=key)
    except Exception:
        raise ArgumentError(
            argument,
            f"{key} is neither a PEM certificate nor a public key on one of the curves P-256, P-384 and P-521; give the public "
            "key of the signer, or the certificate of its authority",
        ) from None
    return made.set_hashing_config(hashing.Config().set_ignored_paths(paths=UNSIGNED, ignore_git_paths=False))
