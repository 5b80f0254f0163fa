"""Registers trained models and promotes the champion."""
