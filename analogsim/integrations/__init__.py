"""Doors to other people's programs: a module for each, which imports the other package, and nobody imports it unasked.

`analogsim.integrations.lightning` and `.transformers` are for their trainers, `.mlflow` for its runs, `.aihwkit` for
configurations and networks of aihwkit and aihwkit-lightning.
"""
