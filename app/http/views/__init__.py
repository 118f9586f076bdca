"""One file a resource; views load, call, dump."""
