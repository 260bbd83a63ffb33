"""Datasets: ingestion, duplicates, lists and deletion."""

import pytest

from service import datasets, garbage, leases
from service.errors import DatasetInUse, DatasetNotFound, InvalidRequest
from ssl_core import events
from ssl_core.config import Reading
from tests.service import given


def test_ingestion_makes_the_dataset_ready_with_its_report(database, tenant):
    dataset = given.create_dataset(database, tenant)
    assert (dataset.status, dataset.path) == ("validating", None)
    claim = given.claim_job(database, "data")
    assert (claim.upload, claim.config["on_bad_file"]) == (leases.Upload(tenant, given.SHA), "reject")
    assert (claim.kind, claim.dataset_id, claim.dataset_path) == ("ingest", dataset.id, None)
    with database.writing() as session:
        result = given.events.Result(given.report())
        leases.record_events(session, claim.job_id, 1, 60, [result], f"datasets/{dataset.id}/a1")
        leases.finish(session, claim.job_id, 1, "succeeded")
    with database.reading() as session:
        ready = datasets.get(session, tenant, dataset.id)
        assert (ready.status, ready.path, ready.report) == ("ready", f"datasets/{dataset.id}/a1", given.report())
        assert ready.ready_at is not None


def test_failed_ingestion_fails_the_dataset_with_its_errors(database, tenant):
    dataset = given.create_dataset(database, tenant)
    errors = [{"pointer": "cat/1.jpg", "code": "truncated", "detail": "It ends too early."}]
    error = {"code": "bad_images", "detail": "One file is no image.", "errors": errors}
    given.finish_job(database, given.claim_job(database, "data"), "failed", error)
    with database.reading() as session:
        failed = datasets.get(session, tenant, dataset.id)
        assert (failed.status, failed.error, failed.path) == ("failed", error, None)


def test_ingestion_without_progress_fails_the_dataset(database, tenant):
    dataset = given.create_dataset(database, tenant)
    for _ in range(3):
        given.release_job(database, given.claim_job(database, "data"))
    with database.reading() as session:
        failed = datasets.get(session, tenant, dataset.id)
        assert failed.status == "failed"
        assert failed.error["code"] == "no_progress"


def test_duplicate_of_a_ready_dataset_shares_its_files(database, tenant):
    first = given.create_ready_dataset(database, tenant)
    again = given.create_dataset(database, tenant)
    assert again.status == "ready"
    assert again.id != first
    assert again.path == f"datasets/{first}/a1"
    assert again.report == given.report()
    with database.reading() as session:
        assert leases.count_pending(session) == {}


def test_concurrent_duplicates_are_stored_once(database, tenant):
    twins = [given.create_dataset(database, tenant).id for _ in range(2)]
    for dataset in twins:
        claim = given.claim_job(database, "data")
        assert claim.dataset_id == dataset
        given.record_events(database, claim, events.Result(given.report()))
        given.finish_job(database, claim)
    with database.reading() as session:
        first, second = (datasets.get(session, tenant, dataset) for dataset in twins)
        assert (second.status, second.path, second.report) == ("ready", first.path, first.report)
        live = garbage.live_paths(session)
    assert f"datasets/{first.id}/a1" in live
    assert f"datasets/{second.id}/a1" not in live


def test_duplicate_with_another_policy_or_tenant_is_ingested(database, tenant, stranger):
    given.create_ready_dataset(database, tenant)
    assert given.create_dataset(database, tenant, reading=Reading(on_bad_file="skip")).status == "validating"
    assert given.create_dataset(database, stranger).status == "validating"


def test_a_dataset_that_an_earlier_version_has_read_is_read_again(database, tenant):
    first = given.create_ready_dataset(database, tenant)
    with database.writing() as session:
        datasets.get(session, tenant, first).reading = None
    assert given.create_dataset(database, tenant).status == "validating"


def test_dataset_of_another_tenant_is_not_found(database, tenant, stranger):
    dataset = given.create_dataset(database, tenant)
    with database.reading() as session:
        with pytest.raises(DatasetNotFound):
            datasets.get(session, stranger, dataset.id)
        assert datasets.list_(session, stranger).items == []
    with database.writing() as session, pytest.raises(DatasetNotFound):
        datasets.delete(session, stranger, dataset.id)


def test_malformed_id_is_not_found(database, tenant):
    for nonsense in ("", "ds_", "ds_\x00", "\udc80", "x" * 10_000, "ds_" + "0" * 26):
        with database.reading() as session, pytest.raises(DatasetNotFound):
            datasets.get(session, tenant, nonsense)


def test_list_is_paged_newest_first(database, tenant):
    made = [given.create_dataset(database, tenant, f"{number:064x}").id for number in range(5)]
    seen, after = [], None
    with database.reading() as session:
        while True:
            page = datasets.list_(session, tenant, after, limit=2)
            seen += [dataset.id for dataset in page.items]
            after = page.next
            if not page.has_more:
                break
    assert seen == sorted(made, reverse=True)
    assert after is None


def test_list_is_filtered_by_status(database, tenant):
    ready = given.create_ready_dataset(database, tenant)
    given.create_dataset(database, tenant, "cd" * 32)
    with database.reading() as session:
        assert [dataset.id for dataset in datasets.list_(session, tenant, status="ready").items] == [ready]


def test_invalid_cursor_is_refused(database, tenant):
    with database.reading() as session, pytest.raises(InvalidRequest):
        datasets.list_(session, tenant, after="\x00")


def test_unprintable_name_is_refused(database, tenant):
    for name in ("", "  ", "a\x00b", "a\nb", "\ud800", "x" * 201):
        with database.writing() as session, pytest.raises(InvalidRequest):
            datasets.create(session, tenant, name=name, sha256=given.SHA, size_bytes=1)


def test_deleted_dataset_is_not_reused(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    with database.writing() as session:
        datasets.delete(session, tenant, dataset)
    with database.reading() as session, pytest.raises(DatasetNotFound):
        datasets.get(session, tenant, dataset)
    assert given.create_dataset(database, tenant).status == "validating"


def test_dataset_in_use_is_not_deleted(database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    given.submit_job(database, tenant, dataset)
    with database.writing() as session, pytest.raises(DatasetInUse):
        datasets.delete(session, tenant, dataset)
    given.finish_job(database, given.claim_job(database))
    with database.writing() as session:
        datasets.delete(session, tenant, dataset)


def test_delete_cancels_the_ingestion(database, tenant):
    waiting = given.create_dataset(database, tenant)
    with database.writing() as session:
        datasets.delete(session, tenant, waiting.id)
        assert leases.count_pending(session) == {}
    running = given.create_dataset(database, tenant)
    claim = given.claim_job(database, "data")
    with database.writing() as session:
        datasets.delete(session, tenant, running.id)
    with database.writing() as session:
        assert leases.record_events(session, claim.job_id, 1, 60, [], "") == "cancel"
