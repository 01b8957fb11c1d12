"""`viewgate compare`: a view or a cache? The same readers and writers against each mode, and one report of what came out."""
