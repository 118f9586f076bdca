"""The algorithms of JOSE as rows of tables, and what keys are."""
