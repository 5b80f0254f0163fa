"""HTML pages about data and models: one file each, nothing fetched from the network, light and dark."""
