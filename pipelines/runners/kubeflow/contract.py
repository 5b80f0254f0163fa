"""Keys of an artifact's metadata shared by the compiler and tasks, besides `RunContext`'s variables."""

# TFX type of the artifact, importer that created it, URI of content that KFP does not transport.
TYPE = "tfx_type"
NODE = "tfx_node"
URI = "tfx_uri"
