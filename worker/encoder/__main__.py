"""`python -m worker.encoder`: the encoder server, as one process."""

from worker.encoder.server import main

if __name__ == "__main__":
    main()
