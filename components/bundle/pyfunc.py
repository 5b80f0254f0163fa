"""A bundle as MLflow serves it: the same for every framework."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from switchyard.components.bundle.model import BundleModel, load_bundle


class PyfuncModel(mlflow.pyfunc.PythonModel):
    """MLflow's interface of a bundle: raw features in, `prediction` and probabilities out."""

    def load_context(self, context: Any) -> None:
        """Loads the bundle that lies in the MLflow Model, if its files are as the manifest beside this one says."""
        self.bundle: BundleModel = load_bundle(Path(context.artifacts["bundle"]).parents[1])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """See `BundleModel.predict`."""
        return self.bundle.predict(model_input)
