"""One programmed chip: written, followed through time, saved and loaded, calibrated and compensated."""
