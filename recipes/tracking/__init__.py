"""Runs in MLflow: where they are kept, what they hold, how they are found."""
