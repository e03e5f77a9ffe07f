"""From a digital network to its analog twin over the very same Parameters, and back."""
