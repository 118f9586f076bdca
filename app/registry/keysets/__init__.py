"""Key sets: names whose keys follow one another."""
