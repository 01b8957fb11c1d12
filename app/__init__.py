"""Turns the key: reads the environment, opens clients and names the definition; the road of a request and the road of a message."""
