"""MLflow's models-from-code entry: the same for every framework."""

import mlflow

from components.model_bundle import PyfuncModel

mlflow.models.set_model(PyfuncModel())
