"""Runners: execute the same pipeline on different platforms. `contract` defines the interface and lists the runners."""
