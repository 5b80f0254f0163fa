"""New projects, as `switchyard init` writes them: a look at the data, the templates, and invented data."""

# The pipeline of a project, also where a command names none.
PIPELINE = "pipeline.yaml"
TABULAR, TEXT, IMAGE = TEMPLATES = ("tabular", "text", "image")
