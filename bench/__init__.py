"""Measurements: each side by side with its alternative in one run, reported as figures and ratios. Never a test."""
