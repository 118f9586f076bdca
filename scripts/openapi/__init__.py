"""The OpenAPI document, and the pages of docs that are made of it and of the tables of errors."""
