"""KServe: manifests, and the state of a cluster's KServe."""
