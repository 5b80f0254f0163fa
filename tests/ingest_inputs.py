"""The specification of ingest's input, as most tests need it. Imports no framework."""

from switchyard.components.ingest.input_spec import InputSpec


def input_spec(*paths, **changes):
    """Returns the specification of files with the label `y`, all rows in `train`; `changes`: other fields of `InputSpec`."""
    given = dict(weights={"train": 1.0}, format="auto", exclude=[], max_bad_rows=0, label="y", task="auto")
    return InputSpec(path=[str(p) for p in paths], **{**given, **changes})
