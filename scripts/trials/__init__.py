"""Long trials of a whole service: fuzz, load, soak, kills, timing, cost of many keys."""
