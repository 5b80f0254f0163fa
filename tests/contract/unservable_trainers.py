"""Trainers of models that evaluation cannot tell from good ones, and that must not be served."""

import os

from sklearn_trainer import SklearnTrainer


class ForgetfulTrainer(SklearnTrainer):
    """Its model needs what only a stage's process has."""

    name = "forgetful"

    @classmethod
    def load_predictor(cls, export_dir):
        os.environ["SWITCHYARD_STAGE"]
        return super().load_predictor(export_dir)


class MoodyTrainer(SklearnTrainer):
    """Its model's answer depends on what else is in the batch, as with batch normalization left in training mode."""

    name = "moody"

    @classmethod
    def load_predictor(cls, export_dir):
        predict = super().load_predictor(export_dir)

        def moody(features):
            scores = predict(features)
            return scores - 0.001 * (scores - scores.mean())

        return moody
