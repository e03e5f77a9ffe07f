"""Scores over chips and times, what each part and each layer costs, and how many operations run analog."""
