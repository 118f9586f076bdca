"""Key sets: rotation that no verifier notices (wire contract §15)."""
