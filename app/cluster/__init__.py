"""A Redis Cluster as if it were one Redis."""
