"""What every trainer promises, by every trainer."""
