"""Registers a trained model and moves the champion."""
