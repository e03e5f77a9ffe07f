"""Chips that are asked part of the data each: which part, what follows of it, and what later ones learn from it."""
