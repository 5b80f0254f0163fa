"""The contract of trainers, checked for every trainer."""
