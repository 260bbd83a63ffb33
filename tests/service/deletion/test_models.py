"""Deletion of models: what refuses it, and what stays."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.orm import Session

from service import garbage, jobs, models, steering
from service.aliases import store as aliases
from service.deletion import models as model_deletion
from service.errors import ModelInUse, ModelNotFound, ModelNotReady, ParentFailed
from service.quotas import usage
from service.verify.inventory import list_items
from ssl_core import config
from tests.service import given


def test_a_deleted_model_is_not_found_and_its_bytes_are_gone(database, tenant, run_job, write):
    job, other = run_job(), run_job()
    assert write(model_deletion.delete, tenant, job.made_model_id) == job.made_model_id
    for name in (job.made_model_id, job.id):
        with database.reading() as session, pytest.raises(ModelNotFound):
            models.get(session, tenant, name)
        with pytest.raises(ModelNotFound):
            write(model_deletion.delete, tenant, name)
    with database.reading() as session:
        assert [model.id for model in models.list_(session, tenant).items] == [other.made_model_id]
        assert usage.measure_bytes(session, tenant).models == 10
        assert [item.path for item in list_items(session) if item.kind == "model"] == [f"jobs/{other.id}/a1/model"]
        assert [path for path in garbage.live_paths(session) if path.endswith("model")] == [f"jobs/{other.id}/a1/model"]
        assert [freed.id for freed in garbage.list_freed(session)] == [job.id]
        assert jobs.get(session, tenant, job.id).made_model_id == job.made_model_id
        assert len(jobs.checkpoints(session, job.id)) == 1


def test_a_model_in_use_is_not_deleted_and_its_uses_are_named(database, tenant, dataset, run_job, write):
    job = run_job()
    first, second = (given.submit_job(database, tenant, dataset, "knn_eval", model=job.id) for _ in range(2))
    given.claim_job(database)
    for name in ("prod", "best"):
        write(aliases.put, tenant, name, job.id)
    with pytest.raises(ModelInUse, match=r"The alias best names it.* needs it.* And 1 more\.") as error:
        write(model_deletion.delete, tenant, job.id)
    used = [fault["pointer"] for fault in error.value.errors]
    assert used == ["/aliases/best", "/aliases/prod", f"/jobs/{first.id}", f"/jobs/{second.id}"]
    assert f"{first.id}, which is running, needs it" in error.value.errors[2]["detail"]
    for child in (first, second):
        write(steering.cancel, tenant, child.id)
    given.finish_job(database, given_claim(database, first.id), "cancelled")
    for name in ("prod", "best"):
        write(aliases.delete, tenant, name)
    write(model_deletion.delete, tenant, job.id)
    for child in (first, second):
        with pytest.raises(ModelNotFound):
            write(steering.retry, tenant, child.id)


def given_claim(database, job_id):
    """The claim of a job that runs its first attempt."""
    job = given.get_job(database, job_id)
    return type("Claim", (), {"job_id": job.id, "attempt": job.attempt})


def test_a_job_without_a_model_has_none_to_delete(database, tenant, dataset, run_job, write):
    waiting, failed = given.submit_job(database, tenant, dataset, priority=-1), run_job("failed")
    for job, error in ((waiting, ModelNotReady), (failed, ParentFailed)):
        with pytest.raises(error):
            write(model_deletion.delete, tenant, job.id)


def test_the_models_of_others_are_not_deleted(tenant, stranger, run_job, write):
    job = run_job()
    for name in (job.id, job.made_model_id):
        with pytest.raises(ModelNotFound):
            write(model_deletion.delete, stranger, name)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("by_job", [True, False])
def test_a_model_that_a_new_job_uses_meanwhile_is_not_deleted(database, tenant, dataset, run_job, by_job):
    job = run_job()
    name = job.id if by_job else job.made_model_id
    with ThreadPoolExecutor() as threads, Session(database.engine) as using, Session(database.engine) as deleting:
        jobs.submit(using, tenant, dataset, config.parse({}, "knn_eval"), model=name)
        deleted = threads.submit(model_deletion.delete, deleting, tenant, name)
        with pytest.raises(TimeoutError):
            deleted.result(0.3)
        using.commit()
        with pytest.raises(ModelInUse):
            deleted.result()
        deleting.rollback()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("by_job", [True, False])
def test_a_model_that_is_deleted_meanwhile_is_not_used(database, tenant, dataset, run_job, by_job):
    job = run_job()
    name = job.id if by_job else job.made_model_id
    with ThreadPoolExecutor() as threads, Session(database.engine) as deleting, Session(database.engine) as using:
        model_deletion.delete(deleting, tenant, name)
        used = threads.submit(jobs.submit, using, tenant, dataset, config.parse({}, "knn_eval"), model=name)
        with pytest.raises(TimeoutError):
            used.result(0.3)
        deleting.commit()
        with pytest.raises(ModelNotFound):
            used.result()
