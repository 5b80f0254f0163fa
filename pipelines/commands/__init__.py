"""The commands; each is `command` in the module of its name, imported when it is called."""

# Name -> text in `switchyard --help`, which imports no command.
COMMANDS = {
    "init": "Write a new project: a commented YAML, model code, a test.",
    "run": "Run a pipeline on this machine.",
    "demo": "Run the breast_cancer example with both trainers and compare them.",
    "ui": "Open MLflow's UI on a workspace's runs.",
    "upload": "Send the records buffered while MLflow was unreachable.",
    "schema": "Keep a reviewed schema: infer, show, diff, accept.",
    "dependencies": "Install packages that your code needs, and list them in the YAML.",
    "models": "List, compare, promote and roll back registered models.",
    "predict": "Predict the rows of files.",
    "serve": "Serve a model over HTTP.",
    "deploy": "Deploy a model to KServe or TensorFlow Serving.",
    "drift": "Compare requests in service with the training data.",
    "compile": "Compile a pipeline for Kubeflow Pipelines v2.",
    "submit": "Run a pipeline on Kubeflow Pipelines, now or by a schedule.",
    "runs": "Manage runs on Kubeflow Pipelines.",
    "doctor": "Check whether a cluster is ready for a first run.",
    "warm": "Show or stop the processes that make the next run or predict start sooner.",
}
# Commands that run in a fork of a process that has imported the libraries, see `components.process.warm`.
WARM = ("run", "predict")
# The only one in a serving image.
SERVE = "serve"
