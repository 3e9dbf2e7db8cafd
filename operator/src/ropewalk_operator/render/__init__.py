"""Specs -> whole manifests.

Pure: no client, no clock, no environment; the same spec always gives the same manifests.
"""
