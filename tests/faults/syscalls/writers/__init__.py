"""Every function of the product that writes files, as a writer under test."""

from tests.faults.syscalls.writer import Writer
from tests.faults.syscalls.writers import api, client, core, dataset, index, service

_ROOMS = (core, dataset, index, service, api, client)
WRITERS: dict[str, Writer] = {writer.name: writer for room in _ROOMS for writer in room.WRITERS}
