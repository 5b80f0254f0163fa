"""Trainers of models that pass evaluation and must fail infra validation."""

import os

from sklearn_trainer import SklearnTrainer


class ForgetfulTrainer(SklearnTrainer):
    """Its model depends on a variable that only a stage's process has."""

    name = "forgetful"

    @classmethod
    def load_predictor(cls, export_dir):
        os.environ["SWITCHYARD_STAGE"]
        return super().load_predictor(export_dir)


class MoodyTrainer(SklearnTrainer):
    """Its model's answer depends on the other rows of the batch, as with batch normalization in training mode."""

    name = "moody"

    @classmethod
    def load_predictor(cls, export_dir):
        predict = super().load_predictor(export_dir)

        def moody(features):
            scores = predict(features)
            return scores - 0.001 * (scores - scores.mean())

        return moody
