"""What GET /metrics returns, in Prometheus' text format."""
