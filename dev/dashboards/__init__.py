"""The Grafana dashboards, written as a few lines a panel; `python -m dashboards` makes the chart's JSON of them.

Grafana's own SDK builds the JSON, so that its types hold every field to Grafana's schema.
"""
