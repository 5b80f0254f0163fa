"""Runs the `switchyard` command as `python -m switchyard`."""

from switchyard.pipelines.cli import entry

if __name__ == "__main__":
    entry()
