"""Measurements: one question per file, ratios against a peer in the same run, answers proven equal before anything is timed."""
