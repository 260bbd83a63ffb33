"""What is worth an alert: jobs and queues, leases, heartbeats, the data disk and the last maintenance."""
