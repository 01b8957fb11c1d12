"""WHAT a view is: the ground floor. Imports nothing else of ours and does no I/O."""
