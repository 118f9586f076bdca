"""Figures: what the service costs beside a bare Flask view and beside the token itself."""
