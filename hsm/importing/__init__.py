"""Keys that come in wrapped, and are unwrapped in the token: nobody else sees them."""
