"""The HTTP server: uvicorn, with limits on what a client without a key can hold."""
