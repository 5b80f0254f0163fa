"""MLflow's models-from-code entry: the same for every framework."""

from collections.abc import Mapping
from typing import Any

import mlflow
import pandas as pd

from components.model_bundle import BundleModel


class PyfuncModel(mlflow.pyfunc.PythonModel):
    """What MLflow serves: a BundleModel behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Loads the bundle that lies in the MLflow Model."""
        self.bundle = BundleModel(context.artifacts["bundle"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """See `BundleModel.predict`."""
        return self.bundle.predict(model_input)


mlflow.models.set_model(PyfuncModel())
