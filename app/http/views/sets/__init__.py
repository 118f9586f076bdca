"""Endpoints of key sets (wire contract §15)."""
