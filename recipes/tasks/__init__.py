"""What recipes train: data sets and networks."""
