"""JOSE as text: base64url, headers, signing inputs, strict JSON."""
