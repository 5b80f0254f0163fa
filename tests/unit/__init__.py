"""One function or class, no framework imported, no process started."""
