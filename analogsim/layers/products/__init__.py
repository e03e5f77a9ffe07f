"""Products that a forward takes with a weight in its own way: what they are, and the crossbars that answer."""
