"""Config, definition, runners and the command line."""
