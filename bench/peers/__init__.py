"""What other stream processors run to keep the same counts: each a program of its own, in an environment of its own (environment.py)."""
