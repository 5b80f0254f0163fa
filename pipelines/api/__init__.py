"""The functions that `import switchyard` gives: what the commands do, without a terminal."""
