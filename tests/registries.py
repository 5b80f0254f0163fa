"""Separate registries for tests that move aliases."""

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.tracking import model_registry
from switchyard.components.tracking import run as tracking


def described(name, bundle, **changes):
    """Returns what the registry stage hands on about a blessed model: the arguments of `register_model`."""
    return {
        "name": name,
        "bundle": str(bundle),
        "uri": str(bundle),
        "passed": True,
        "blessed": True,
        "compared_with": None,
        "why": "better",
        "metrics": {"auc": 0.9},
        "data": "fingerprint",
        "tags": {"framework": "pytorch"},
        "description": "",
        **changes,
    }


def small_bundle(folder, number):
    """Writes an MLflow model that is registered and never loaded; returns its folder."""
    path = folder / f"bundle{number}"
    path.mkdir()
    (path / "MLmodel").write_text(f"artifact_path: model\nflavors: {{}}\nnumber: {number}\n")
    return path


def bundle_with_images(folder, column):
    """Writes of a bundle what it records about data with a column of images."""
    place = folder / "artifacts" / "bundle" / "data"
    place.mkdir(parents=True)
    facts = {key: [] for key in ("files", "bad_row_samples", "empty_columns", "classes")}
    facts |= {key: {} for key in ("columns", "missing", "rows", "class_counts")}
    DatasetSummary(fingerprint="", bad_rows=0, label="b", task="regression", images={column: [8, 8, 3]}, **facts).save(str(place))


def small_model(folder, number, **changes):
    """Returns what is registered of `small_bundle`, under the name m."""
    return described("m", small_bundle(folder, number), **changes)


def registry(folder, name, bundles, *, each_beats_the_last=True):
    """Registers (framework, bundle) pairs as versions 1, 2, ...; returns URI and client.

    The last one is champion, or, where they do not beat each other, the first.
    """
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = tracking.client(uri)
    experiment = client.create_experiment("x", artifact_location=str(folder / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    for number, (framework, bundle) in enumerate(bundles):
        compared = str(number) if number and each_beats_the_last else None
        model_registry.register_model(
            client, run_id, described(name, bundle, compared_with=compared, tags={"framework": framework})
        )
    return uri, client
