"""What the compiler and a task agree on, besides `RunContext`'s variables: keys of an artifact's metadata."""

# Its type in TFX, the importer that it came by, where its content is if KFP did not carry it.
TYPE = "tfx_type"
NODE = "tfx_node"
URI = "tfx_uri"
