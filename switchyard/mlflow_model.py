"""MLflow's models-from-code entry, copied into every bundle: it names Switchyard's public API alone."""

import mlflow

from switchyard import PyfuncModel

mlflow.models.set_model(PyfuncModel())
