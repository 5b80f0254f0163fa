"""HTML pages and charts of any report."""
