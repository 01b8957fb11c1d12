"""Kafka, Redis and PostgreSQL on one machine without containers: for the demo, the tests and the benchmarks. Knows nothing of viewgate."""
