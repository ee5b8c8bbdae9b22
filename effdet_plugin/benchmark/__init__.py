"""Costs: counted ones."""
