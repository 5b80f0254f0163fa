"""What arrives must not harm: data, requests, bundles, folders."""
