"""Chooses what CI runs beside `make test`, and records when each suite last passed."""
