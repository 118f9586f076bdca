"""Requests and answers: routes, bodies, operations, batches, and the audit of each."""
