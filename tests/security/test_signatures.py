"""A version's signature shows who made it, also to those who do not trust the registry: what it does not cover is refused."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from mlflow.utils.file_utils import local_file_uri_to_path

pytest.importorskip("model_signing", reason="the extra [signing] is not installed")

from switchyard.components.bundle.source import open_model
from switchyard.components.bundle.verification import check_version
from switchyard.components.errors import UserError
from switchyard.components.process.variables import SIGNING_PASSWORD
from switchyard.components.signing.config import SigningConfig
from switchyard.components.signing.signatures import SIGNATURE, check_signer, check_verifier, sign, verify_signature
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.manifest import write_manifest
from switchyard.components.tracking.model_registry import DIGEST, register_model
from switchyard.pipelines.commands.deploy import command as deploy
from switchyard.pipelines.commands.drift import command as drift
from switchyard.pipelines.commands.models import command as models
from switchyard.pipelines.commands.models import verify
from tests.registries import described, small_bundle
from tests.security.keys import certificate, key_pair


@pytest.fixture
def keys(tmp_path):
    return key_pair(tmp_path)


@pytest.fixture
def registry(tmp_path, keys):
    """Returns URI, client and the folders of a signed version 1 and an unsigned version 2 of m."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = tracking.client(uri)
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "files").as_uri())
    run_id = client.create_run(experiment).info.run_id
    folders = []
    for number in (1, 2):
        bundle = small_bundle(tmp_path, number)
        model = described("m", bundle, digest=write_manifest(bundle), compared_with="1" if number == 2 else None)
        if number == 1:
            model["signature"] = sign(bundle, SigningConfig(key=str(keys[0])))
        assert register_model(client, run_id, json.loads(json.dumps(model))).version == str(number)
        folders.append(Path(local_file_uri_to_path(client.get_model_version_download_uri("m", str(number)))))
    return uri, client, folders


def open_version(uri, number, key):
    with open_model(f"m@{number}", uri, verify_by=key) as opened:
        return opened.digest


def rewrite(client, folder, *, number="1"):
    """Changes a file as one can who may write to the registry: manifest and registered digest fit the change."""
    (folder / "MLmodel").write_text("flavors: {}\nother: true\n")
    client.set_model_version_tag("m", number, DIGEST, write_manifest(folder))


def test_a_signed_version_is_opened_with_its_signers_key_only(registry, keys, tmp_path):
    uri, client, _ = registry
    assert open_version(uri, 1, keys[1]) == client.get_model_version("m", "1").tags[DIGEST]
    with pytest.raises(UserError, match=r"signature does not verify with .*other.pub.pem: Key mismatch"):
        open_version(uri, 1, key_pair(tmp_path, "other")[1])
    with pytest.raises(UserError, match=r"has no signature \(model.sig\).*signing"):
        open_version(uri, 2, keys[1])


def test_a_change_that_the_registry_itself_confirms_is_refused_by_the_signature(registry, keys):
    uri, client, (folder, _) = registry
    rewrite(client, folder)
    with open_model("m@1", uri):
        pass  # the digests say nothing about who changed the registry
    with pytest.raises(UserError, match=r"signature does not verify.*Hash mismatch for 'MLmodel'"):
        open_version(uri, 1, keys[1])


@pytest.mark.parametrize("name", ["added", ".gitignore", "artifacts/added"])
def test_a_file_added_to_a_signed_version_is_refused(name, registry, keys):
    uri, client, (folder, _) = registry
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    client.set_model_version_tag("m", "1", DIGEST, write_manifest(folder))
    with pytest.raises(UserError, match=f"Extra files found.*{name}"):
        open_version(uri, 1, keys[1])


def test_another_versions_signature_and_one_that_is_no_signature_are_refused(registry, keys):
    uri, _, (signed, unsigned) = registry
    shutil.copy(signed / SIGNATURE, unsigned / SIGNATURE)
    with pytest.raises(UserError, match="Hash mismatch for 'MLmodel'"):
        open_version(uri, 2, keys[1])
    for text in ("", "{}", "[]", '{"verificationMaterial": {}}', "\x00", '{"verificationMaterial": null}'):
        (unsigned / SIGNATURE).write_text(text)
        with pytest.raises(UserError, match="signature does not verify"):
            open_version(uri, 2, keys[1])


def test_a_signature_shows_the_origin_of_a_folder_and_of_a_version_without_a_digest(registry, keys, tmp_path):
    uri, client, (folder, _) = registry
    client.delete_model_version_tag("m", "1", DIGEST)
    assert open_version(uri, 1, keys[1])
    with pytest.raises(UserError, match="registered without a digest"):
        open_version(uri, 1, None)
    (folder / "MLmodel").write_text("other")
    with pytest.raises(UserError, match="'MLmodel' was changed"), open_model(folder, verify_by=keys[1]):
        pass


def test_models_verify_reports_the_signature(registry, keys, tmp_path, capsys):
    uri, client, (folder, _) = registry

    def outcome(version, key):
        return {c.what: c.outcome for c in check_version(client, uri, "m", version, key)}.get("signature")

    other = key_pair(tmp_path, "other")[1]
    assert (outcome("1", keys[1]), outcome("1", other), outcome("1", None)) == ("same", "changed", "unknown")
    assert (outcome("2", keys[1]), outcome("2", None)) == ("changed", None)
    assert verify(uri, "m", "1", keys[1], as_json=False) == 0
    assert "verifies with" in capsys.readouterr().out
    rewrite(client, folder)
    assert verify(uri, "m", "1", keys[1], as_json=True) == 1
    with pytest.raises(UserError, match=r"verify_by: .*holds a private key; give the public one"):
        verify(uri, "m", "1", keys[0], as_json=True)


@pytest.mark.parametrize("command", ["deploy", "drift", "compare"])
def test_each_command_that_opens_a_version_refuses_it_with_another_key(command, registry, keys, tmp_path):
    uri, _, _ = registry
    (tmp_path / "rows.csv").write_text("a,b\n1,0\n")
    other = key_pair(tmp_path, "other")[1]
    given = {
        "deploy": (deploy, ["m@1", "--target", "kserve", "-o", tmp_path / "manifests"]),
        "drift": (drift, ["m@1", tmp_path / "rows.csv"]),
        "compare": (models, ["compare", "m", "1", "2", "--data", tmp_path / "rows.csv"]),
    }
    program, arguments = given[command]
    done = CliRunner().invoke(program, [str(a) for a in (*arguments, "--tracking-uri", uri, "--verify", other)])
    assert done.exit_code == 2
    assert f"error: m version 1: its signature does not verify with {other}" in done.output
    assert not (tmp_path / "manifests").exists()
    done = CliRunner().invoke(program, [str(a) for a in (*arguments, "--tracking-uri", uri, "--verify", keys[0])])
    assert "--verify: " in done.output
    assert "holds a private key" in done.output


def test_pods_verify_the_signature_of_a_deployed_version_by_the_key_in_its_manifests(registry, keys, tmp_path):
    uri, client, _ = registry
    client.delete_model_version_tag("m", "1", DIGEST)
    given = ["m@1", "--target", "kserve", "-o", tmp_path / "manifests", "--tracking-uri", uri]
    given += ["--cluster-tracking-uri", "http://mlflow.mlflow:5000"]
    done = CliRunner().invoke(deploy, [str(a) for a in given])
    assert done.exit_code == 2
    assert "if it is signed, add --verify KEY" in done.output
    done = CliRunner().invoke(deploy, [str(a) for a in (*given, "--verify", keys[1])])
    assert done.exit_code == 0, done.output
    service, signer = (
        yaml.safe_load((tmp_path / "manifests" / f"{n}.yaml").read_text()) for n in ("inference-service", "signer")
    )
    listed = yaml.safe_load((tmp_path / "manifests" / "kustomization.yaml").read_text())["resources"]
    assert listed == ["inference-service.yaml", "signer.yaml"]
    [container] = service["spec"]["predictor"]["containers"]
    [mount] = [m for m in container["volumeMounts"] if m["name"] == "signer"]
    [volume] = [v for v in service["spec"]["predictor"]["volumes"] if v["name"] == "signer"]
    [name] = signer["data"]
    assert volume["configMap"]["name"] == signer["metadata"]["name"]
    assert container["args"][:3] == ["m@1", "--verify", f"{mount['mountPath']}/{name}"], "a signed version needs no --trust"
    (tmp_path / "mounted.pem").write_text(signer["data"][name])
    assert open_version(uri, 1, tmp_path / "mounted.pem")


def test_compare_without_data_opens_no_version_and_refuses_a_key(registry, keys):
    done = CliRunner().invoke(models, ["compare", "m", "1", "2", "--tracking-uri", registry[0], "--verify", str(keys[1])])
    assert done.exit_code == 2
    assert "--verify: without --data no version is opened" in done.output


def test_the_librarys_own_verification_accepts_a_downloaded_version(registry, keys):
    from model_signing import verifying

    folder = registry[2][0]
    verifying.Config().use_elliptic_key_verifier(public_key=keys[1]).verify(folder, folder / SIGNATURE)


def test_a_signature_with_a_certificate_verifies_with_its_authority(tmp_path, keys):
    root_key, _ = key_pair(tmp_path, "root")
    root = certificate(tmp_path, "root", root_key)
    issued = certificate(tmp_path, "signer", keys[0], (root, root_key))
    bundle = small_bundle(tmp_path, 1)
    config = SigningConfig(key=str(keys[0]), certificate=str(issued))
    (bundle / SIGNATURE).write_text(sign(bundle, config))
    verify_signature(bundle, root)
    between_key, _ = key_pair(tmp_path, "between")
    between = certificate(tmp_path, "between", between_key, (root, root_key), signs=True)
    issued = certificate(tmp_path, "signer", keys[0], (between, between_key))
    for chain in ((), (str(between),)):
        (bundle / SIGNATURE).write_text(sign(bundle, SigningConfig(key=str(keys[0]), certificate=str(issued), chain=chain)))
        if not chain:
            with pytest.raises(UserError, match="signature does not verify"):
                verify_signature(bundle, root)
    verify_signature(bundle, root)
    other = certificate(tmp_path, "other", key_pair(tmp_path, "other")[0])
    for wrong in (other, keys[1]):
        with pytest.raises(UserError, match="signature does not verify"):
            verify_signature(bundle, wrong)
    (bundle / "MLmodel").write_text("changed")
    with pytest.raises(UserError, match="Hash mismatch"):
        verify_signature(bundle, root)
    with pytest.raises(UserError, match=r"signing\.certificate: .*is no PEM certificate of signing\.key"):
        check_signer(SigningConfig(key=str(keys[0]), certificate=str(other)))


def test_an_encrypted_key_needs_its_password_in_the_environment(tmp_path, monkeypatch):
    private, public = key_pair(tmp_path, "locked", b"correct")
    config, bundle = SigningConfig(key=str(private)), small_bundle(tmp_path, 1)
    with pytest.raises(UserError, match=f"locked.pem is encrypted; set {SIGNING_PASSWORD}"):
        sign(bundle, config)
    monkeypatch.setenv(SIGNING_PASSWORD, "wrong")
    with pytest.raises(UserError, match=f"{SIGNING_PASSWORD} is not its password"):
        check_signer(config)
    monkeypatch.setenv(SIGNING_PASSWORD, "correct")
    (bundle / SIGNATURE).write_text(sign(bundle, config))
    verify_signature(bundle, public)
    with pytest.raises(UserError, match=f"is not encrypted; unset {SIGNING_PASSWORD}"):
        check_signer(SigningConfig(key=str(key_pair(tmp_path)[0])))


def test_what_is_no_key_is_refused_by_the_name_of_its_setting(tmp_path):
    file = tmp_path / "text"
    file.write_text("no key")
    with pytest.raises(UserError, match=r"signing\.key: .*is no private key in PEM.*openssl"):
        check_signer(SigningConfig(key=str(file)))
    with pytest.raises(UserError, match=r"signing\.key: cannot read"):
        check_signer(SigningConfig(key=str(tmp_path / "gone")))
    for wrong in (file, tmp_path / "gone", tmp_path):
        with pytest.raises(UserError, match=r"key: "):
            check_verifier(wrong, "key")


def test_the_check_of_a_key_tells_one_key_from_another_and_holds_nothing_of_it(tmp_path, keys):
    config = SigningConfig(key=str(keys[0]))
    assert check_signer(config) == check_signer(config)
    assert check_signer(config) != check_signer(SigningConfig(key=str(key_pair(tmp_path, "other")[0])))
    certified = config.model_copy(update={"certificate": str(certificate(tmp_path, "own", keys[0]))})
    before = check_signer(certified)
    certificate(tmp_path, "own", keys[0])  # renewed, in the same file
    assert len({check_signer(config), before, check_signer(certified)}) == 3
    assert "PRIVATE" not in sign(small_bundle(tmp_path, 1), config)
