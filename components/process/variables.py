"""Switchyard's own environment variables and their meanings.

Variables that pass a run's context between processes go through `RunContext` (`components/tracking/context.py`), which alone
reads and writes them.
"""

from __future__ import annotations

# Set by users.
DEBUG = "SWITCHYARD_DEBUG"
SERVE_TOKEN = "SWITCHYARD_SERVE_TOKEN"  # noqa: S105 (a variable's name)
SIGNING_PASSWORD = "SWITCHYARD_SIGNING_PASSWORD"  # noqa: S105
KFP_HOST = "SWITCHYARD_KFP_HOST"
KFP_NAMESPACE = "SWITCHYARD_KFP_NAMESPACE"
KFP_TOKEN = "SWITCHYARD_KFP_TOKEN"  # noqa: S105
KFP_COOKIE = "SWITCHYARD_KFP_COOKIE"
TRY_XLA_ON_CPU = "SWITCHYARD_TRY_XLA_ON_CPU"
WARM = "SWITCHYARD_WARM"

# Set by the serving images.
SERVES = "SWITCHYARD_SERVES"

# A process's place in a run, see `RunContext`.
PARENT_RUN_ID = "SWITCHYARD_PARENT_RUN_ID"
STAGE = "SWITCHYARD_STAGE"
JOURNAL = "SWITCHYARD_TRACKING_JOURNAL"
STATE = "SWITCHYARD_STATE"
RECORD = "SWITCHYARD_RUN_RECORD"
LAST_STAGES = "SWITCHYARD_LAST_STAGES"
DATA_ROOT = "SWITCHYARD_DATA_ROOT"
FILES = "SWITCHYARD_FILES"
STAGES = "SWITCHYARD_CONTEXTS_OF_STAGES"

# Between a training stage, its launchers and its workers.
TRAIN_JOB = "SWITCHYARD_TRAIN_JOB"
NODE = "SWITCHYARD_NODE"
LEASE = "SWITCHYARD_LEASE"
STAGE_PIPE = "SWITCHYARD_STAGE_PIPE"
TRAINING_SERVERS = "SWITCHYARD_TRAINING_SERVERS"
MODULE_SERVERS = "SWITCHYARD_MODULE_SERVERS"

# Between a local runner and the process that stages are forked from.
PRELOAD_LOG = "SWITCHYARD_PRELOAD_LOG"
PRELOAD_TRAINERS = "SWITCHYARD_PRELOAD_TRAINERS"
PRELOAD_SERVING = "SWITCHYARD_PRELOAD_SERVING"

MEANINGS = {
    DEBUG: "set to any value: unexpected errors are shown with their stack trace",
    SERVE_TOKEN: "the token that a server's clients must send",
    SIGNING_PASSWORD: "password of the private key in `signing.key`, if it is encrypted",
    KFP_HOST: "address of Kubeflow Pipelines",
    KFP_NAMESPACE: "the user's namespace there",
    KFP_TOKEN: "bearer token for it",
    KFP_COOKIE: "session's cookie for it",
    TRY_XLA_ON_CPU: "1: PyTorch/XLA's CPU device counts as a TPU",
    WARM: "0: every command imports the libraries itself, and leaves no process behind",
    SERVES: "of a serving image: the framework whose models it serves",
    PARENT_RUN_ID: "the pipeline's MLflow run",
    STAGE: "the stage that the process runs",
    JOURNAL: "folder for what cannot be sent to MLflow",
    STATE: "folder for checkpoints, which outlives the process",
    RECORD: "content of the pipeline's MLflow run, for the task that creates it (JSON, compressed if long)",
    LAST_STAGES: "last stages: the last of them to finish ends the pipeline's MLflow run",
    DATA_ROOT: "where examples are written, bypassing KFP's launcher and its copies",
    FILES: "where the files are that were uploaded with the pipeline",
    STAGES: "contexts of the stages of a joined task (JSON)",
    TRAIN_JOB: "settings of training on several nodes: `TrainJobSettings` (JSON); not set: this machine runs all nodes",
    NODE: "set on a node of several: the launcher has the addresses of the others",
    LEASE: "seconds and file by which a node detects that its stage still runs",
    STAGE_PIPE: "set if standard input is a pipe from the stage; the launcher ends when it closes",
    TRAINING_SERVERS: "where frameworks are imported already: framework to socket and log (JSON)",
    MODULE_SERVERS: "where infra validation's servers are forked: framework to socket (JSON)",
    PRELOAD_LOG: "file for what the preloading process prints",
    PRELOAD_TRAINERS: "trainers to import there, separated by commas",
    PRELOAD_SERVING: "socket of a fork of it, made before it imports more than a server of a TensorFlow model needs",
}
