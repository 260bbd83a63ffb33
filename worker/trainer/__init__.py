"""One attempt at a job: the training process, its events and its lease."""
