"""The functions of the public API: the commands without a terminal."""
