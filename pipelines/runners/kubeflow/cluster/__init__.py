"""Adapter for KFP's API, version 2.17: another version gets another such package (docs/decisions/0015-one-adapter.md).

It returns plain data (`run.Run`, `schedules.Recurring`, `workflow.StageState`); callers do not depend on KFP's messages.
"""
