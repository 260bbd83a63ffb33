"""Every function of the product that writes files, as a writer under test."""

from tests.faults.syscalls.writer import Writer
from tests.faults.syscalls.writers import api, client, core, dataset, service

WRITERS: dict[str, Writer] = {
    writer.name: writer for writer in (*core.WRITERS, *dataset.WRITERS, *service.WRITERS, *api.WRITERS, *client.WRITERS)
}
