"""Layers of other packages; each module is imported when a network holds a type of the package it knows."""
