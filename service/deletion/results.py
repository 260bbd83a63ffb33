"""Results of a job: its checkpoints, artifacts and metrics, which are deleted together.

A job that did not succeed may have left the row of a model too, to which no other row refers.
"""

from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from service import metrics
from service.db.models import Artifact, Checkpoint, EmbeddingShard, Job, Model
from service.db.session import clock
from service.db.statuses import JobStatus
from service.embedding import sharers


def delete(session: Session, job: Job) -> None:
    """Delete the rows of the job's results; the keeper removes their files and points.

    The caller has locked the job.
    """
    metrics.detach(session, job)
    for table in (Checkpoint, Artifact, EmbeddingShard):
        session.execute(delete_from(table).where(table.job_id == job.id))
    if job.status != JobStatus.SUCCEEDED and job.made_model_id is not None:
        job.made_model_id = None
        session.flush()
        session.execute(delete_from(Model).where(Model.job_id == job.id))
    job.progress = job.resolved = job.summary = None
    job.freed_at = clock(session)
    session.flush()
    sharers.mark_freed(session, [job.id], job.freed_at)
