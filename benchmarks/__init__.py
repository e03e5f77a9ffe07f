"""Benchmarks: what training on noisy weights costs, and what a chip costs. Run ``python -m benchmarks --help``."""
