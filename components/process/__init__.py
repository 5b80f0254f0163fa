"""Processes: interpreters, accounts, environment variables, tokens, termination and full disks."""
