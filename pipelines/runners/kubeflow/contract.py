"""What the compiler and a task agree on: keys of an artifact's metadata, and variables of a task's environment.

The variables hold what a task's command must not: they do not enter the backend's cache key.
"""

# Kubernetes' own name for the run that a pod belongs to.
RUN_ID = "KFP_RUN_ID"
# What the parent MLflow run holds (`run_record.RunRecord` as JSON), where neither KFP nor `submit` made it: all in the
# first tasks that are sure to run, in the others how the run is found.
RECORD = "SWITCHYARD_RUN_RECORD"
# Stages that nothing comes after: the last of them ends the parent MLflow run.
LAST = "SWITCHYARD_LAST_STAGES"
# Where examples go, past KFP's launcher and its copies.
DATA_ROOT = "SWITCHYARD_DATA_ROOT"
# A folder that outlives the pod: checkpoints.
STATE = "SWITCHYARD_STATE"
# Of a task that does several stages: each one's variables, as JSON, where a runner on this machine has them.
OF_STAGES = "SWITCHYARD_VARIABLES_OF_STAGES"

# In an artifact's metadata: its type in TFX, the importer that it came by, where its content is if KFP did not carry it.
TYPE = "tfx_type"
NODE = "tfx_node"
URI = "tfx_uri"
