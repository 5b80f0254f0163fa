"""Adapts bundles of all frameworks to MLflow's pyfunc interface."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from switchyard.components.bundle.model import BundleModel, load_bundle


class PyfuncModel(mlflow.pyfunc.PythonModel):
    """A bundle as an MLflow pyfunc model, from raw features to `prediction` and probabilities."""

    def load_context(self, context: Any) -> None:
        """Loads the bundle of the MLflow Model after verifying its files against the manifest."""
        self.bundle: BundleModel = load_bundle(Path(context.artifacts["bundle"]).parents[1])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Returns the predictions, see `BundleModel.predict`."""
        return self.bundle.predict(model_input)
