"""Processes: interpreters that are started, the account they run as, the room on their disk."""
