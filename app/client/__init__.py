"""The command line at a service: its API as a person types it."""
