"""The real stack on one machine, and the services that write into it."""
