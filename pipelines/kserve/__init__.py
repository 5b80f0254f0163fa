"""KServe: manifests, and what a cluster says of them."""
