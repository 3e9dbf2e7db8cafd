"""`make observe`: Prometheus and Alertmanager beside the local cluster, and the dashboards' figures."""
