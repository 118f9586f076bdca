"""Who connects: which worker takes him, and whether there is room."""
