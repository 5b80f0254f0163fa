"""All that knows the shape of KFP's API, 2.17's: another version is another such package (docs/decisions/0015-one-adapter.md).

What it returns is plain data (`run.Run`, `schedules.Recurring`, `workflow.StageState`); who uses it knows no message of KFP's.
"""
