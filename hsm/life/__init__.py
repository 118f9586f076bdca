"""The token from the first call to the last: connection, boot proof, watchdog."""
