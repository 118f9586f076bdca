"""All cryptography outside the token: what an auditor reads first."""
