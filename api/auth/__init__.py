"""Keys of requests: the scopes of routes, and the record of how keys are used."""
