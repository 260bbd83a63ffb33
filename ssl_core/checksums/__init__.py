"""SHA-256 checksums of stored files, recorded when a file is written and checked when its bytes are used."""
