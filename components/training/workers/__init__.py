"""Trains one model in several processes or on several nodes."""
