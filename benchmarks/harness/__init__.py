"""What benchmarks share: networks, methods, clocks, figures of others."""
