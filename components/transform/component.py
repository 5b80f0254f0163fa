"""The transform stage as a TFX component."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfx import types
from tfx.components import Transform as TfxTransform
from tfx.dsl.components.base import executor_spec

from switchyard.components.transform.executor import Executor
from switchyard.components.user_code.loading import UserCode


class Transform(TfxTransform):
    """TFX's Transform; `code` is the user's `preprocessing_fn`, None for the default one.

    `tokenizer` is the user's `build_tokenizer`, `texts` the columns that the default preprocessing passes to it, all if empty.
    `version` is part of the cache key only. `environment` is the schema environment of the examples.

    Outputs:
        transform_graph, transformed_examples: as in TFX.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        schema: types.BaseChannel,
        code: UserCode | None,
        version: str,
        environment: str | None = None,
        tokenizer: UserCode | None = None,
        texts: Sequence[str] = (),
    ) -> None:
        tokenized = {"tokenizer": dataclasses.asdict(tokenizer), "texts": list(texts)} if tokenizer else {}
        super().__init__(
            examples=examples,
            schema=schema,
            preprocessing_fn="switchyard.stages.preprocessing_fn",
            custom_config={
                "version": version,
                "code": dataclasses.asdict(code) if code else None,
                "environment": environment,
                **tokenized,
            },
            disable_statistics=True,
            disable_analyzer_cache=True,
        )
