"""What the API asks of the encoder: an HTTP client of the encoder server, and bodies of /embed with their memory."""
