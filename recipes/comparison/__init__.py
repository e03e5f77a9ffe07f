"""Runs beside one another: found again, drawn, as a page."""
