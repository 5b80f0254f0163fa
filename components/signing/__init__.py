"""Signs model bundles and verifies their signatures, offline, in the format of OpenSSF Model Signing."""
