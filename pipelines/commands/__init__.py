"""The commands of `switchyard`, a module each."""
