"""Renders HTML pages and charts for all reports."""
