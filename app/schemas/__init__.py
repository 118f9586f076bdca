"""The bodies of requests and responses: pure functions of JSON."""
