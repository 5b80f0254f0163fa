"""The data gate: anomalies, drift, skew and leakage, each with what was expected, what was seen and what it does."""
