"""What knows nothing of hardware: text, times, module trees, tensors, batches, values made again in backward."""
