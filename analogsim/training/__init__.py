"""What training with noise is steered by: how much of it, its schedule, clipping of weights."""
