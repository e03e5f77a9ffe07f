"""What of a network runs analog, and the proof that it does."""
