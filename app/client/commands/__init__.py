"""The commands, a file for each resource of the API."""
