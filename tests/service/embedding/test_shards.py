"""Shards of a job that embeds a dataset: claimed by several attempts, fenced, and counted together."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, func, select, update

from service import datasets, garbage, jobs, leases, lifecycle, steering
from service.db.kinds import EMBED_SHARDS
from service.db.models import Artifact, EmbeddingShard, Job, JobEvent
from service.db.session import now
from service.db.statuses import JobStatus
from service.deletion import jobs as job_deletion
from service.deletion import models as model_deletion
from service.deletion import retention
from service.embedding import shards, sharers
from service.errors import DatasetInUse, InvalidConfig, JobNotFound, ModelInUse
from service.quotas import usage
from service.settings import Settings
from ssl_core.config.embedding import name_files
from ssl_core.events import Progress, Shard
from tests.service import given


@pytest.fixture
def model(database, tenant):
    """A model, and the dataset of 100 training and 20 test images that it was trained on."""
    dataset = given.create_ready_dataset(database, tenant, test=20)
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model(layers={"backbone": 64, "projection": 32}))
    given.finish_job(database, claim)
    return dataset, job.id


@pytest.fixture
def submit(database, tenant, model):
    """Submit a job of six shards of 20 images; keywords are fields of its config."""
    dataset, made_by = model

    def submit(**config):
        fields = {"rows_per_shard": 20, **config}
        return given.submit_job(database, tenant, dataset, "embed_dataset", model=made_by, config=fields)

    return submit


def claim_shard(database, claim):
    with database.writing() as session:
        return shards.claim(session, claim.shards_of, claim.job_id, claim.attempt)


def claim_all(database, claim):
    return list(iter(lambda: claim_shard(database, claim), None))


def written(shard, sha256=given.SHA):
    return Shard(shard.number, shard.first_row, shard.rows, sha256, 10, sha256, 20)


def let_lease_expire(database, claim):
    with database.writing() as session:
        session.execute(update(Job).where(Job.id == claim.job_id).values(lease_until=now() - 1))


def names_of(database, job_id):
    with database.reading() as session:
        return [artifact.name for artifact in jobs.artifacts(session, job_id)]


def sharers_of(database, job_id):
    with database.reading() as session:
        query = select(Job).where(Job.parent_id == job_id, Job.kind == EMBED_SHARDS).order_by(Job.id)
        return [str(job.status) for job in session.scalars(query)]


def test_the_first_claim_divides_the_images_into_shards(database, submit):
    submit(splits=["train"])
    found = claim_all(database, given.claim_job(database))
    assert [(shard.number, shard.first_row, shard.rows) for shard in found] == [(n, 20 * n, 20) for n in range(5)]


def test_the_last_shard_is_shorter(database, submit):
    submit(rows_per_shard=50)
    assert [shard.rows for shard in claim_all(database, given.claim_job(database))] == [50, 50, 20]


def test_two_claimers_never_get_one_shard(database, submit):
    submit(workers=3, rows_per_shard=2)
    claims = [given.claim_job(database) for _ in range(3)]
    assert [claim.shards_of for claim in claims] == [claims[0].job_id] * 3
    barrier = threading.Barrier(3)

    def take(claim):
        barrier.wait()
        return [shard.number for shard in claim_all(database, claim)]

    with ThreadPoolExecutor(3) as pool:
        found = [number for numbers in pool.map(take, claims) for number in numbers]
    # A claim that meets another on the last row finds none, and looks again.
    found += [shard.number for shard in claim_all(database, claims[0])]
    assert sorted(found) == [*range(60)]


def test_the_shard_of_an_expired_lease_is_taken_back(database, submit):
    submit(workers=2)
    main, sharer = given.claim_job(database), given.claim_job(database)
    first = claim_shard(database, sharer)
    assert claim_shard(database, main).number == 1
    let_lease_expire(database, sharer)
    assert claim_shard(database, main) == first


def test_a_late_write_is_refused_once_another_has_taken_the_shard(database, submit):
    job = submit(workers=2)
    main, sharer = given.claim_job(database), given.claim_job(database)
    shard = claim_shard(database, sharer)
    let_lease_expire(database, sharer)
    assert claim_shard(database, main) == shard
    given.record_events(database, sharer, written(shard))  # it has woken up, and its job was not reclaimed
    assert names_of(database, job.id) == []
    given.record_events(database, main, written(shard, "cd" * 32))
    assert names_of(database, job.id) == [*name_files(0)]
    given.record_events(database, sharer, written(shard))
    with database.reading() as session:
        artifact = jobs.artifact(session, job.id, name_files(0)[0])
    assert (artifact.sha256, artifact.path) == ("cd" * 32, f"jobs/{job.id}/a1/{name_files(0)[0]}")


def test_an_attempt_that_was_reclaimed_writes_no_shard(database, submit):
    job = submit()
    late = given.claim_job(database)
    shard = claim_shard(database, late)
    let_lease_expire(database, late)
    with database.writing() as session:
        assert leases.reap(session) == [job.id]
    again = given.claim_job(database)
    assert claim_shard(database, late) is None
    assert claim_shard(database, again) == shard
    with pytest.raises(leases.LeaseLost):
        given.record_events(database, late, written(shard))


def test_the_end_of_an_attempt_frees_its_shards_and_keeps_those_that_are_done(database, submit):
    submit()
    claim = given.claim_job(database)
    first, second = claim_shard(database, claim), claim_shard(database, claim)
    given.record_events(database, claim, written(first))
    given.release_job(database, claim, counts=False)
    assert claim_shard(database, given.claim_job(database)) == second


def test_shards_of_all_workers_are_artifacts_of_the_job(database, submit):
    job = submit(workers=2)
    main, sharer = given.claim_job(database), given.claim_job(database)
    for claim in (main, sharer, sharer, main, main, sharer):
        given.record_events(database, claim, written(claim_shard(database, claim)))
    assert names_of(database, job.id) == sorted(name for number in range(6) for name in name_files(number))
    with database.reading() as session:
        done = shards.find_done(session, job.id)
        paths = {artifact.path.split("/")[1] for artifact in jobs.artifacts(session, job.id)}
    assert done.shards == tuple(Shard(n, 20 * n, 20, given.SHA, 10, given.SHA, 20) for n in range(6))
    assert paths == {main.job_id, sharer.job_id}


def test_nothing_is_done_before_every_shard_is(database, submit):
    job = submit(rows_per_shard=60)
    claim = given.claim_job(database)
    given.record_events(database, claim, written(claim_shard(database, claim)))
    with database.reading() as session:
        assert shards.find_done(session, job.id) is None


def test_progress_is_that_of_all_workers(database, submit):
    job = submit(workers=2)
    main, sharer = given.claim_job(database), given.claim_job(database)
    for claim in (main, sharer):
        given.record_events(database, claim, written(claim_shard(database, claim)))
        claim_shard(database, claim)
    given.record_events(database, sharer, Progress(0, 1, 25, 40, 30.0, 1.0))
    given.record_events(database, main, Progress(0, 1, 30, 40, 10.0, 1.0))
    progress = given.get_job(database, job.id).progress
    assert (progress["step"], progress["total_steps"]) == (20 + 20 + 5 + 10, 120)
    assert (progress["images_per_second"], progress["eta_seconds"]) == (40.0, 65 / 40)


def test_so_many_workers_share_a_job_as_it_allows_and_has_shards_for(database, submit):
    few, many = submit(workers=3), submit(workers=64)
    for _ in range(2):
        given.claim_job(database)
    assert sharers_of(database, few.id) == ["queued"] * 2
    assert sharers_of(database, many.id) == ["queued"] * 5


def test_another_attempt_adds_only_what_is_missing(database, submit):
    job = submit(workers=3)
    main, sharer = given.claim_job(database), given.claim_job(database)
    given.finish_job(database, sharer)
    given.release_job(database, main, counts=False)
    assert given.claim_job(database).job_id == job.id  # it was submitted first
    assert sharers_of(database, job.id) == ["succeeded", "queued", "queued"]


@pytest.mark.parametrize("verb", [steering.cancel, steering.pause])
def test_cancelling_or_pausing_the_job_stops_the_workers_that_share_it(database, tenant, submit, verb):
    job = submit(workers=3)
    given.claim_job(database)
    sharer = given.claim_job(database)
    with database.writing() as session:
        verb(session, tenant, job.id)
    assert sharers_of(database, job.id) == ["cancelling", "cancelled"]
    assert given.record_events(database, sharer) == "cancel"
    assert claim_shard(database, sharer) is None


def test_a_resumed_job_is_shared_again(database, tenant, submit):
    job = submit(workers=2)
    main = given.claim_job(database)
    with database.writing() as session:
        steering.pause(session, tenant, job.id)
    assert given.release_job(database, main, counts=False) == "paused"
    with database.writing() as session:
        steering.resume(session, tenant, job.id)
    given.claim_job(database)
    assert sharers_of(database, job.id) == ["queued"]


def test_a_withdrawn_pause_lets_others_share_the_job_again(database, tenant, submit):
    job = submit(workers=2)
    given.claim_job(database)
    for verb in (steering.pause, steering.resume):
        with database.writing() as session:
            verb(session, tenant, job.id)
    assert sharers_of(database, job.id) == ["queued"]


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_the_end_of_the_job_ends_those_that_share_it(database, submit, status):
    job = submit(workers=3)
    main = given.claim_job(database)
    given.claim_job(database)
    given.finish_job(database, main, status)
    assert sharers_of(database, job.id) == ["cancelling", "cancelled"]


def test_a_worker_that_shares_a_job_again_starts_anew(database, tenant, submit):
    """The row is that of before; its late attempt holds nothing, and what it has finished stays."""
    job = submit(workers=2)
    main, late = given.claim_job(database), given.claim_job(database)
    given.record_events(database, late, written(claim_shard(database, late)))
    shard = claim_shard(database, late)
    given.record_events(database, late, Progress(0, 1, 35, 40, 30.0, 1.0))
    with database.writing() as session:
        steering.pause(session, tenant, job.id)
    given.finish_job(database, late, "cancelled")
    given.release_job(database, main, counts=False)
    with database.writing() as session:
        steering.resume(session, tenant, job.id)
    given.claim_job(database)
    again = given.claim_job(database)
    assert (again.job_id, again.attempt) == (late.job_id, 2)
    assert given.get_job(database, again.job_id).progress is None
    assert claim_shard(database, late) is None
    assert claim_shard(database, again) == shard
    with pytest.raises(leases.LeaseLost):
        given.record_events(database, late, written(shard))
    assert len(names_of(database, job.id)) == 2


@pytest.fixture
def shared(database, submit):
    """A job that has ended, and the job that has shared it, which has left two of its shards."""
    job = submit(workers=2)
    main, sharer = given.claim_job(database), given.claim_job(database)
    for claim in (main, sharer, sharer):
        given.record_events(database, claim, written(claim_shard(database, claim)))
    given.finish_job(database, main)
    given.finish_job(database, sharer, "cancelled")
    return job.id, sharer.job_id


def freed_of(database):
    with database.reading() as session:
        return {freed.id: freed.live for freed in garbage.list_freed(session)}


def test_the_files_of_those_that_shared_a_deleted_job_are_removed_with_its_own(database, tenant, shared):
    job, sharer = shared
    with database.writing() as session:
        job_deletion.delete(session, tenant, job)
    assert freed_of(database) == {job: frozenset(), sharer: frozenset()}
    with database.reading() as session:
        assert session.scalars(select(JobEvent.seq).where(JobEvent.job_id.in_(shared))).all() == []
        assert f"jobs/{sharer}" in garbage.known_folders(session)


def test_retention_frees_the_files_of_those_that_shared_a_job(database, shared):
    job, sharer = shared
    with database.writing() as session:
        session.get_one(Job, job).finished_at -= 8 * 86_400
    with database.writing() as session:
        assert retention.delete_expired(session, Settings(retention_artifact_days=7)) == 1
    assert freed_of(database) == {job: frozenset(), sharer: frozenset()}


def test_the_shards_of_a_job_that_is_there_are_kept_in_the_folder_of_another(database, shared):
    job, sharer = shared
    with database.writing() as session:
        sharers.mark_freed(session, [job], 1.0)
    names = [name for number in (1, 2) for name in name_files(number)]
    assert freed_of(database) == {sharer: frozenset(f"jobs/{sharer}/a1/{name}" for name in names)}


def test_jobs_that_share_another_are_hidden_and_wait_for_no_quota(database, tenant, submit):
    job = submit(workers=3)
    given.claim_job(database)
    sharer = given.claim_job(database)
    with database.reading() as session:
        assert job.id in [found.id for found in jobs.list_(session, tenant).items]
        assert {found.kind for found in jobs.list_(session, tenant).items} == {"pretrain", "embed_dataset"}
        for read in (jobs.get, jobs.show, jobs.poll):
            with pytest.raises(JobNotFound):
                read(session, tenant, sharer.job_id)
        assert usage.count_jobs(session, tenant, "train") == usage.JobCounts(queued=0, running=2)


def test_a_job_stands_for_those_that_share_it_when_something_is_deleted(database, tenant, submit, model):
    """One that is still being cancelled keeps neither the ended job, nor its dataset or its model."""
    job = submit(workers=3)
    given.claim_job(database)
    given.claim_job(database)
    dataset, made_by = model
    with database.writing() as session:
        with pytest.raises(DatasetInUse) as of_dataset:
            datasets.delete(session, tenant, dataset)
        with pytest.raises(ModelInUse) as of_model:
            model_deletion.delete(session, tenant, made_by)
    for error in (of_dataset, of_model):
        assert [fault["pointer"] for fault in error.value.errors] == [f"/jobs/{job.id}"]
    with database.writing() as session:
        lifecycle.end(session, jobs.lock(session, tenant, job.id), JobStatus.CANCELLED, "Cancelled.")
    assert sharers_of(database, job.id) == ["cancelling", "cancelled"]
    with database.writing() as session:
        model_deletion.delete(session, tenant, made_by)
        job_deletion.delete(session, tenant, job.id)
        datasets.delete(session, tenant, dataset)


def test_the_priority_of_a_job_is_that_of_those_that_wait_to_share_it(database, tenant, submit):
    job = submit(workers=3)
    main, sharer = given.claim_job(database), given.claim_job(database)
    given.release_job(database, main, counts=False)
    with database.writing() as session:
        steering.change(session, tenant, job.id, {"priority": 5})
    with database.reading() as session:
        query = select(Job.id, Job.status, Job.priority).where(Job.parent_id == job.id, Job.kind == EMBED_SHARDS)
        found = {row.id: (row.status, row.priority) for row in session.execute(query)}
    assert found.pop(sharer.job_id) == ("running", 0)
    assert [*found.values()] == [("queued", 5)]


def test_a_worker_that_shares_a_job_has_its_config_model_and_precision(database, submit, model):
    submit(workers=2, layer="projection")
    main = given.claim_job(database)
    given.record_events(database, main, *[])
    with database.writing() as session:
        session.get_one(Job, main.job_id).resolved = {**main.config, "device": "cuda", "precision": "bf16"}
    sharer = given.claim_job(database)
    assert sharer.config == {**main.config, "precision": "bf16"}
    assert (sharer.kind, sharer.config["kind"], sharer.config["device"]) == (EMBED_SHARDS, "embed_dataset", "auto")
    assert (sharer.model_path, sharer.dataset_path) == (main.model_path, main.dataset_path)
    assert sharer.provenance["model"] == main.provenance["model"]


def test_a_shard_whose_files_a_backup_left_out_is_computed_again(database, submit):
    job = submit()
    claim = given.claim_job(database)
    shard = claim_shard(database, claim)
    given.record_events(database, claim, written(shard))
    given.release_job(database, claim, counts=False)
    with database.writing() as session:
        session.execute(delete(Artifact).where(Artifact.job_id == job.id, Artifact.name == name_files(0)[1]))
    assert claim_shard(database, given.claim_job(database)) == shard


def test_a_retry_from_the_start_divides_the_images_again(database, tenant, submit):
    job = submit()
    claim = given.claim_job(database)
    given.record_events(database, claim, written(claim_shard(database, claim)))
    given.finish_job(database, claim, "failed", {"code": "corrupt", "detail": "A file is damaged."})
    with database.writing() as session:
        steering.retry(session, tenant, job.id, "start")
    assert names_of(database, job.id) == []
    assert len(claim_all(database, given.claim_job(database))) == 6


def test_a_retry_goes_on_with_the_open_shards(database, tenant, submit):
    job = submit()
    claim = given.claim_job(database)
    given.record_events(database, claim, written(claim_shard(database, claim)))
    given.finish_job(database, claim, "failed", {"code": "corrupt", "detail": "A file is damaged."})
    with database.writing() as session:
        steering.retry(session, tenant, job.id)
    assert len(claim_all(database, given.claim_job(database))) == 5
    assert len(names_of(database, job.id)) == 2


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"layer": "block1"}, "/config/layer"),
        ({"splits": ["train", "val"]}, "/config/splits/1"),
        ({"rows_per_shard": 1, "workers": 1}, None),
    ],
)
def test_what_the_model_or_the_dataset_lacks_is_refused(database, submit, config, pointer):
    if pointer is None:
        assert submit(**config).status == "queued"
        return
    with pytest.raises(InvalidConfig) as caught:
        submit(**config)
    assert [fault["pointer"] for fault in caught.value.errors] == [pointer]


def test_a_job_has_so_many_shards_at_most(database, tenant):
    dataset = given.create_ready_dataset(database, tenant, images=2_001)
    job = given.submit_job(database, tenant, dataset)
    with pytest.raises(InvalidConfig) as caught:
        given.submit_job(database, tenant, dataset, "embed_dataset", model=job.id, config={"rows_per_shard": 2})
    (fault,) = caught.value.errors
    assert (fault["pointer"], fault["code"]) == ("/config/rows_per_shard", "too_many_shards")
    assert "need 3" in fault["detail"]


def test_a_job_of_ten_million_images_has_200_shards(database, tenant):
    dataset = given.create_ready_dataset(database, tenant, images=10_000_000)
    trained = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model())
    given.finish_job(database, claim)
    given.submit_job(database, tenant, dataset, "embed_dataset", model=trained.id, config={"workers": 64})
    given.claim_job(database)
    with database.reading() as session:
        assert session.execute(select(func.count(), func.sum(EmbeddingShard.rows))).one() == (200, 10_000_000)


def test_a_job_that_waits_for_its_model_is_divided_when_it_runs(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    trained = given.submit_job(database, tenant, dataset)
    job = given.submit_job(database, tenant, dataset, "embed_dataset", model=trained.id)
    assert job.status == "waiting"
    with database.writing() as session:
        lifecycle.pause(session, session.get_one(Job, job.id))
    assert sharers_of(database, job.id) == []
