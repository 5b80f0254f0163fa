"""MLflow's models-from-code entry point, copied into every bundle; it imports only Switchyard's public API."""

import mlflow

from switchyard import PyfuncModel

mlflow.models.set_model(PyfuncModel())
