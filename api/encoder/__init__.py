"""What /embed asks of the encoder: its request bodies, their memory, and an HTTP client of the encoder server."""
