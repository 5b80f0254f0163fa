"""What CI runs beside `make test`, and what is known of the suites it does not run."""
