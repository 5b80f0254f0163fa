"""Keys of an artifact's metadata shared by the compiler and tasks, besides `RunContext`'s variables; the oldest KFP."""

# TFX type of the artifact, importer that created it, URI of content that KFP does not transport.
TYPE = "tfx_type"
NODE = "tfx_node"
URI = "tfx_uri"

# Older versions lack fixes of security, and parts of the API.
OLDEST_KFP = "2.17.0"
