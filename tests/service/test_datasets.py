"""Datasets: an upload is validated once, and forgotten only when nobody needs it."""

import pytest

from service import datasets, garbage, leases
from service.errors import DatasetInUse, DatasetNotFound, InvalidRequest
from ssl_core import events
from tests.service import given


def test_an_upload_waits_for_its_ingestion_and_becomes_ready_with_its_report(database, tenant):
    dataset = given.validating(database, tenant)
    assert (dataset.status, dataset.path) == ("validating", None)
    claim = given.claimed(database, "data")
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


def test_a_failed_ingestion_fails_the_dataset_with_every_fault(database, tenant):
    dataset = given.validating(database, tenant)
    errors = [{"pointer": "cat/1.jpg", "code": "truncated", "detail": "It ends too early."}]
    error = {"code": "bad_images", "detail": "One file is no image.", "errors": errors}
    given.finished(database, given.claimed(database, "data"), "failed", error)
    with database.reading() as session:
        failed = datasets.get(session, tenant, dataset.id)
        assert (failed.status, failed.error, failed.path) == ("failed", error, None)


def test_an_ingestion_that_dies_three_times_fails_the_dataset(database, tenant):
    dataset = given.validating(database, tenant)
    for _ in range(3):
        given.released(database, given.claimed(database, "data"))
    with database.reading() as session:
        failed = datasets.get(session, tenant, dataset.id)
        assert failed.status == "failed"
        assert failed.error["code"] == "no_progress"


def test_the_same_bytes_are_ready_at_once_and_stored_once(database, tenant):
    first = given.ready(database, tenant)
    again = given.validating(database, tenant)
    assert again.status == "ready"
    assert again.id != first
    assert again.path == f"datasets/{first}/a1"
    assert again.report == given.report()
    with database.reading() as session:
        assert leases.count_pending(session) == {}


def test_the_same_bytes_uploaded_twice_at_once_are_kept_once(database, tenant):
    twins = [given.validating(database, tenant).id for _ in range(2)]
    for dataset in twins:
        claim = given.claimed(database, "data")
        assert claim.dataset_id == dataset
        given.recorded(database, claim, events.Result(given.report()))
        given.finished(database, claim)
    with database.reading() as session:
        first, second = (datasets.get(session, tenant, dataset) for dataset in twins)
        assert (second.status, second.path, second.report) == ("ready", first.path, first.report)
        live = garbage.live_paths(session)
    assert f"datasets/{first.id}/a1" in live
    assert f"datasets/{second.id}/a1" not in live


def test_the_same_bytes_under_another_policy_or_tenant_are_validated_anew(database, tenant, stranger):
    given.ready(database, tenant)
    assert given.validating(database, tenant, on_bad_file="skip").status == "validating"
    assert given.validating(database, stranger).status == "validating"


def test_another_tenants_dataset_looks_like_a_missing_one(database, tenant, stranger):
    dataset = given.validating(database, tenant)
    with database.reading() as session:
        with pytest.raises(DatasetNotFound):
            datasets.get(session, stranger, dataset.id)
        assert datasets.list_(session, stranger).items == []
    with database.writing() as session, pytest.raises(DatasetNotFound):
        datasets.delete(session, stranger, dataset.id)


def test_an_id_of_any_shape_is_merely_not_found(database, tenant):
    for nonsense in ("", "ds_", "ds_\x00", "\udc80", "x" * 10_000, "ds_" + "0" * 26):
        with database.reading() as session, pytest.raises(DatasetNotFound):
            datasets.get(session, tenant, nonsense)


def test_lists_go_from_new_to_old_page_by_page(database, tenant):
    made = [given.validating(database, tenant, f"{number:064x}").id for number in range(5)]
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


def test_lists_can_be_narrowed_to_a_status(database, tenant):
    ready = given.ready(database, tenant)
    given.validating(database, tenant, "cd" * 32)
    with database.reading() as session:
        assert [dataset.id for dataset in datasets.list_(session, tenant, status="ready").items] == [ready]


def test_a_page_after_nonsense_is_refused(database, tenant):
    with database.reading() as session, pytest.raises(InvalidRequest):
        datasets.list_(session, tenant, after="\x00")


def test_a_name_that_cannot_be_shown_is_refused(database, tenant):
    for name in ("", "  ", "a\x00b", "a\nb", "\ud800", "x" * 201):
        with database.writing() as session, pytest.raises(InvalidRequest):
            datasets.create(session, tenant, name=name, sha256=given.SHA, size_bytes=1)


def test_a_deleted_dataset_is_gone_and_its_bytes_are_validated_anew(database, tenant):
    dataset = given.ready(database, tenant)
    with database.writing() as session:
        datasets.delete(session, tenant, dataset)
    with database.reading() as session, pytest.raises(DatasetNotFound):
        datasets.get(session, tenant, dataset)
    assert given.validating(database, tenant).status == "validating"


def test_a_dataset_that_a_job_still_needs_is_not_deleted(database, tenant):
    dataset = given.ready(database, tenant)
    given.submitted(database, tenant, dataset)
    with database.writing() as session, pytest.raises(DatasetInUse):
        datasets.delete(session, tenant, dataset)
    given.finished(database, given.claimed(database))
    with database.writing() as session:
        datasets.delete(session, tenant, dataset)


def test_deleting_a_dataset_stops_its_ingestion(database, tenant):
    waiting = given.validating(database, tenant)
    with database.writing() as session:
        datasets.delete(session, tenant, waiting.id)
        assert leases.count_pending(session) == {}
    running = given.validating(database, tenant)
    claim = given.claimed(database, "data")
    with database.writing() as session:
        datasets.delete(session, tenant, running.id)
    with database.writing() as session:
        assert leases.record_events(session, claim.job_id, 1, 60, [], "") == "cancel"
