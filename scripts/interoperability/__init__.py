"""JOSE libraries of others and the service read one another; what was found is a page."""
