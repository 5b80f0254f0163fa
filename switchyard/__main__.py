"""`python -m switchyard`: the `switchyard` command."""

from switchyard.pipelines.cli import entry

if __name__ == "__main__":
    entry()
