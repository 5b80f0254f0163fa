"""pytest plugins of all suites: shared fixtures, clean-up checks, records of durations and results."""
