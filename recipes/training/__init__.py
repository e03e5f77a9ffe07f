"""One training: its loop, its state in files, its processes."""
