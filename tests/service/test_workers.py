"""Worker heartbeats."""

from sqlalchemy import update

from service import workers
from service.db.models import Worker
from service.db.session import now


def test_recent_workers_by_heartbeat(database):
    with database.writing() as session:
        workers.record_heartbeat(session, "train@host", "train")
        workers.record_heartbeat(session, "data@host", "data")
        workers.record_heartbeat(session, "train@host", "train")
    with database.writing() as session:
        session.execute(update(Worker).where(Worker.name == "data@host").values(seen_at=now() - 100))
        assert [worker.name for worker in workers.list_recent(session, 60)] == ["train@host"]
        assert [worker.name for worker in workers.list_recent(session, 200)] == ["data@host", "train@host"]
        workers.delete_old(session, 60)
        assert [worker.name for worker in workers.list_recent(session, 200)] == ["train@host"]
