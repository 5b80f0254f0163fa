"""Plugins of pytest that every suite has: what is made once, what must be left clean, what is recorded."""
