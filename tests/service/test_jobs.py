"""Jobs: submission with its checks, queries, and cancellation."""

import pytest

from service import jobs, leases, models, steering
from service.db.models import Job
from service.errors import (
    BatchTooLarge,
    DatasetFailed,
    DatasetNotFound,
    DatasetNotReady,
    InvalidConfig,
    InvalidRequest,
    JobNotFound,
    LabelsNeeded,
    ModelNeeded,
    ModelNotFound,
    ModelNotReady,
    ParentFailed,
)
from ssl_core import config
from tests.service import given


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


def test_submitted_job_is_queued_with_complete_config(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset, name="first", priority=3, metadata={"team": "birds"})
    shown = given.get_job(database, job.id)
    assert (shown.status, shown.queue, shown.priority, shown.name) == ("queued", "train", 3, "first")
    assert shown.config["method"]["temperature"] == 0.2
    assert config.parse(shown.config).batch_size == 32
    assert shown.user_metadata == {"team": "birds"}


def test_a_job_is_shown_with_every_column_of_it_to_its_tenant(database, tenant, stranger, dataset):
    job = given.submit_job(database, tenant, dataset, metadata={"team": "birds"})
    with database.connecting() as connection:
        shown = jobs.show(connection, tenant, job.id)._asdict()
        assert shown == {column.key: getattr(job, column.key) for column in Job.__table__.c}
        for owner, job_id in ((stranger, job.id), (tenant, job.id[:-1] + "\0")):
            with pytest.raises(JobNotFound):
                jobs.show(connection, owner, job_id)


def test_transitions_contain_every_status(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    given.finish_job(database, given.claim_job(database))
    with database.reading() as session:
        changes = jobs.transitions(session, job.id)
        assert [change.data["status"] for change in changes] == ["queued", "running", "succeeded"]
        assert [change.time for change in changes] == sorted(change.time for change in changes)


def test_dataset_must_exist_and_be_ready(database, tenant, stranger, dataset):
    with pytest.raises(DatasetNotFound):
        given.submit_job(database, stranger, dataset)
    waiting = given.create_dataset(database, tenant, "cd" * 32)
    with pytest.raises(DatasetNotReady):
        given.submit_job(database, tenant, waiting.id)
    given.finish_job(database, given.claim_job(database, "data"), "failed", {"code": "not_an_archive", "detail": "No."})
    with pytest.raises(DatasetFailed):
        given.submit_job(database, tenant, waiting.id)


@pytest.mark.parametrize(
    ("settings", "error", "pointer"),
    [
        ({"method": {"name": "simclr"}, "batch_size": 101}, BatchTooLarge, "/config/batch_size"),
        ({"method": {"name": "simclr"}, "batch_size": 2, "subset": 101}, InvalidConfig, "/config/subset"),
    ],
)
def test_config_incompatible_with_the_dataset_is_refused(database, tenant, dataset, settings, error, pointer):
    with pytest.raises(error) as raised:
        given.submit_job(database, tenant, dataset, config=settings)
    assert [fault["pointer"] for fault in raised.value.errors] == [pointer]


@pytest.mark.parametrize("classes", [0, 1])
def test_kinds_with_labels_need_two_classes(database, tenant, classes):
    bare = given.create_ready_dataset(database, tenant, classes=classes)
    for kind in ("linear_eval", "knn_eval", "supervised", "finetune"):
        with pytest.raises(LabelsNeeded):
            given.submit_job(database, tenant, bare, kind, model="mdl_" + "0" * 26)


def test_projection_needs_no_labels(database, tenant):
    bare = given.create_ready_dataset(database, tenant, classes=0)
    parent = given.submit_job(database, tenant, bare)
    assert given.submit_job(database, tenant, bare, "project", model=parent.id).status == "waiting"


def test_projection_of_an_empty_split_is_refused(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset)
    given.submit_job(database, tenant, dataset, "project", model=parent.id, config={"split": "train"})
    with pytest.raises(InvalidConfig) as raised:
        given.submit_job(database, tenant, dataset, "project", model=parent.id, config={"split": "test"})
    assert [fault["pointer"] for fault in raised.value.errors] == ["/config/split"]


@pytest.mark.parametrize("kind", ["knn_eval", "linear_eval", "project", "export", "finetune", "distill"])
def test_kinds_with_an_input_model_need_one(database, tenant, dataset, kind):
    with pytest.raises(ModelNeeded):
        given.submit_job(database, tenant, dataset, kind)


def test_supervised_needs_no_model(database, tenant, dataset):
    assert given.submit_job(database, tenant, dataset, "supervised").status == "queued"


@pytest.mark.parametrize("kind", ["pretrain", "supervised", "finetune", "distill"])
def test_jobs_can_wait_for_the_model_of_training_kinds(database, tenant, dataset, kind):
    first = given.submit_job(database, tenant, dataset)
    model = first.id if kind in ("finetune", "distill") else None
    maker = given.submit_job(database, tenant, dataset, kind, model=model)
    assert given.submit_job(database, tenant, dataset, "knn_eval", model=maker.id).parent_id == maker.id


def test_distill_needs_labels_only_with_label_weight(database, tenant, dataset):
    bare = given.create_ready_dataset(database, tenant, "cd" * 32, classes=0)
    teacher = given.submit_job(database, tenant, dataset, "supervised").id
    assert given.submit_job(database, tenant, bare, "distill", model=teacher).status == "waiting"
    with pytest.raises(LabelsNeeded):
        given.submit_job(database, tenant, bare, "distill", config={"label_weight": 0.5}, model=teacher)


def test_supervised_batch_size_may_exceed_the_images(database, tenant, dataset):
    given.submit_job(database, tenant, dataset, "supervised", config={"batch_size": 1000})


def test_export_needs_a_model_and_no_labels(database, tenant):
    bare = given.create_ready_dataset(database, tenant, classes=0)
    with pytest.raises(ModelNeeded):
        given.submit_job(database, tenant, bare, "export")
    parent = given.submit_job(database, tenant, bare)
    assert given.submit_job(database, tenant, bare, "export", model=parent.id).status == "waiting"


def test_unknown_model_is_refused(database, tenant, dataset):
    for model in ("", "mdl_", "mdl_" + "0" * 26, "job_" + "0" * 26, "job_\x00", "../../etc"):
        with pytest.raises(ModelNotFound):
            given.submit_job(database, tenant, dataset, "knn_eval", model=model)


def test_job_of_another_tenant_is_no_model(database, tenant, stranger, dataset):
    theirs = given.submit_job(database, tenant, dataset)
    mine = given.create_ready_dataset(database, stranger)
    with pytest.raises(ModelNotFound):
        given.submit_job(database, stranger, mine, "knn_eval", model=theirs.id)


def test_evaluation_makes_no_model(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset)
    evaluation = given.submit_job(database, tenant, dataset, "knn_eval", model=parent.id)
    with pytest.raises(ModelNotFound):
        given.submit_job(database, tenant, dataset, "knn_eval", model=evaluation.id)


def test_waiting_job_is_queued_with_the_model_of_its_parent(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset)
    child = given.submit_job(database, tenant, dataset, "knn_eval", model=parent.id)
    assert child.status == "waiting"
    claim = given.claim_job(database)
    assert claim.job_id == parent.id
    given.record_events(database, claim, given.model())
    given.finish_job(database, claim)
    assert given.get_job(database, child.id).status == "queued"
    assert given.claim_job(database).model_path == f"jobs/{parent.id}/a1/model"


def test_job_with_a_finished_parent_is_queued(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model())
    with database.reading() as session, pytest.raises(ModelNotReady):
        models.get(session, tenant, given.get_job(database, parent.id).made_model_id)
    given.finish_job(database, claim)
    model = given.get_job(database, parent.id).made_model_id
    for name in (parent.id, model):
        job = given.submit_job(database, tenant, dataset, "knn_eval", model=name)
        assert (job.status, job.model_id) == ("queued", model)


@pytest.mark.parametrize(
    ("kind", "config", "pointer"),
    [
        ("knn_eval", {"layer": "block4"}, "/config/layer"),
        ("project", {"layer": "block4"}, "/config/layer"),
        ("linear_eval", {"layer": "projection"}, "/config/layer"),
        ("export", {"layer": "projection"}, "/config/layer"),
        ("pretrain", given.PRETRAIN | {"backbone": {"name": "resnet18"}}, "/config/backbone/name"),
        ("pretrain", given.PRETRAIN | {"backbone": {"width": 2.0}}, "/config/backbone/width"),
        ("pretrain", given.PRETRAIN | {"backbone": {"layout": "google"}}, "/config/backbone/layout"),
        ("pretrain", given.PRETRAIN | {"backbone": {"selective_kernel": True}}, "/config/backbone/selective_kernel"),
        ("finetune", {"backbone": {"width": 2.0}}, "/config/backbone/width"),
        ("finetune", {"ft_proj_selector": 3}, "/config/ft_proj_selector"),
        ("distill", {}, "/model"),
    ],
)
def test_config_incompatible_with_the_model_is_refused(database, tenant, dataset, kind, config, pointer):
    parent = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    network = {"name": "resnet10", "width": 0.5, "stem": "cifar", "selective_kernel": False, "layout": "torchvision"}
    card = {"layers": {"backbone": 256, "block1": 32}, "backbone": network, "projector": {"widths": [256, 64, 32]}}
    given.record_events(database, claim, given.model(**card))
    given.finish_job(database, claim)
    with pytest.raises(InvalidConfig) as refused:
        given.submit_job(database, tenant, dataset, kind, config=config, model=parent.id)
    assert [fault["pointer"] for fault in refused.value.errors] == [pointer]


@pytest.mark.parametrize(
    ("config", "pointer", "words"),
    [
        ({"backbone": {"channels": 3}}, "/config/backbone/channels", "backbone.channels needs images of 3 channels"),
        (
            {"backbone": {"channels": 1}},
            "/config/backbone/channels",
            "images of 1 channel; those of the dataset have 5",
        ),
        ({"backbone": {"weights": "imagenet"}}, "/config/backbone/weights", "backbone.weights needs images of 3"),
        ({"normalisation": "imagenet"}, "/config/normalisation", "normalisation needs images of 3 channels"),
    ],
)
def test_config_of_other_channels_than_the_dataset_is_refused(database, tenant, config, pointer, words):
    dataset = given.create_ready_dataset(database, tenant, channels=5)
    with pytest.raises(InvalidConfig, match=words) as refused:
        given.submit_job(database, tenant, dataset, config=given.PRETRAIN | config)
    assert [(fault["pointer"], fault["code"]) for fault in refused.value.errors] == [(pointer, "channels_differ")]
    given.submit_job(database, tenant, dataset, config=given.PRETRAIN | {"backbone": {"channels": 5}})


def test_a_model_of_other_channels_than_the_dataset_is_refused(database, tenant, dataset):
    bands = given.create_ready_dataset(database, tenant, "cd" * 32, channels=5)
    parents = {}
    for channels, trained_on in ((3, dataset), (5, bands)):
        parents[channels] = given.submit_job(database, tenant, trained_on).id
        claim = given.claim_job(database)
        card = {"layers": {"backbone": 8}, "classifier": {"classes": ["cat", "dog"]}}
        given.record_events(database, claim, given.model(**card, preprocessing={"mean": [0.5] * channels}))
        given.finish_job(database, claim)
    for kind in ("pretrain", "finetune", "distill", "knn_eval", "linear_eval", "project", "export"):
        for channels, other in ((3, bands), (5, dataset)):
            with pytest.raises(InvalidConfig, match=f"takes images of {channels} channels; those of") as refused:
                given.submit_job(database, tenant, other, kind, model=parents[channels])
            assert [fault["pointer"] for fault in refused.value.errors] == ["/model"]
        given.submit_job(database, tenant, bands, kind, model=parents[5])
    weights = {"backbone": {"weights": "imagenet"}}
    for kind, asked in (("pretrain", given.PRETRAIN | weights), ("distill", weights)):
        with pytest.raises(InvalidConfig, match=r"backbone\.weights"):  # as the trainer does
            given.submit_job(database, tenant, bands, kind, config=asked, model=parents[5])


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("knn_eval", {"layer": "block1"}),
        ("pretrain", given.PRETRAIN | {"backbone": {"name": "resnet10"}}),
        ("finetune", {"ft_proj_selector": 2, "backbone": {"width": 0.5}}),
        ("distill", {"backbone": {"name": "resnet18"}}),
    ],
)
def test_config_compatible_with_the_model_is_queued(database, tenant, dataset, kind, config):
    parent = given.submit_job(database, tenant, dataset, "supervised")
    claim = given.claim_job(database)
    network = {"name": "resnet10", "width": 0.5, "stem": "cifar"}
    card = {"layers": {"backbone": 256, "block1": 32}, "backbone": network, "projector": {"widths": [256, 64, 32]}}
    given.record_events(database, claim, given.model(**card, classifier={"classes": ["cat", "dog"]}))
    given.finish_job(database, claim)
    assert given.submit_job(database, tenant, dataset, kind, config=config, model=parent.id).status == "queued"


def test_failed_parent_fails_its_descendants(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset)
    child = given.submit_job(database, tenant, dataset, model=parent.id)
    grandchild = given.submit_job(database, tenant, dataset, "knn_eval", model=child.id)
    given.finish_job(database, given.claim_job(database), "failed", {"code": "diverged", "detail": "NaN."})
    for orphan in (child, grandchild):
        shown = given.get_job(database, orphan.id)
        assert (shown.status, shown.error["code"]) == ("failed", "parent_failed")
    with pytest.raises(ParentFailed):
        given.submit_job(database, tenant, dataset, "knn_eval", model=parent.id)


def test_parent_without_model_fails_its_children(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset)
    child = given.submit_job(database, tenant, dataset, "knn_eval", model=parent.id)
    given.finish_job(database, given.claim_job(database))
    assert given.get_job(database, child.id).error["code"] == "parent_failed"


def test_cancel_of_a_queued_job_fails_its_children(database, tenant, dataset):
    parent = given.submit_job(database, tenant, dataset)
    child = given.submit_job(database, tenant, dataset, "knn_eval", model=parent.id)
    with database.writing() as session:
        assert steering.cancel(session, tenant, parent.id).status == "cancelled"
    assert given.get_job(database, child.id).status == "failed"
    with database.writing() as session:
        assert leases.claim(session, "train", "worker-1", 60) is None


def test_cancel_of_a_running_job_signals_the_worker(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    for _ in range(2):
        with database.writing() as session:
            assert steering.cancel(session, tenant, job.id).status == "cancelling"
    assert given.record_events(database, claim, given.checkpoint(5)) == "cancel"
    given.finish_job(database, claim, "cancelled")
    with database.writing() as session:
        assert steering.cancel(session, tenant, job.id).status == "cancelled"
        history = [change.data["status"] for change in jobs.transitions(session, job.id)]
        assert history == ["queued", "running", "cancelling", "cancelled"]
        assert [kept.step for kept in jobs.checkpoints(session, job.id)] == [5]


def test_cancel_of_a_finished_job_has_no_effect(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    given.finish_job(database, given.claim_job(database))
    with database.writing() as session:
        assert steering.cancel(session, tenant, job.id).status == "succeeded"
        assert len(jobs.transitions(session, job.id)) == 3


def test_job_of_another_tenant_is_not_found(database, tenant, stranger, dataset):
    job = given.submit_job(database, tenant, dataset)
    with database.writing() as session:
        for verb in (jobs.get, steering.cancel, jobs.poll):
            for name in (job.id, "job_" + "0" * 26, "job_\x00", "\ud800"):
                with pytest.raises(JobNotFound):
                    verb(session, stranger, name)
        assert jobs.list_(session, stranger).items == []


def test_ingest_jobs_are_hidden(database, tenant):
    given.create_dataset(database, tenant)
    claim = given.claim_job(database, "data")
    with database.writing() as session:
        assert jobs.list_(session, tenant).items == []
        for verb in (jobs.get, steering.cancel):
            with pytest.raises(JobNotFound):
                verb(session, tenant, claim.job_id)


def test_list_is_filtered(database, tenant, dataset):
    first = given.submit_job(database, tenant, dataset)
    second = given.submit_job(database, tenant, dataset, "knn_eval", model=first.id)
    with database.reading() as session:
        found = {
            "queued": jobs.list_(session, tenant, status="queued"),
            "knn": jobs.list_(session, tenant, kind="knn_eval"),
            "all": jobs.list_(session, tenant, dataset=dataset),
            "none": jobs.list_(session, tenant, dataset="\x00"),
        }
    ids = {name: [job.id for job in page.items] for name, page in found.items()}
    assert ids["queued"] == [first.id]
    assert ids["knn"] == [second.id]
    assert sorted(ids["all"]) == sorted([first.id, second.id])
    assert ids["none"] == []


UNSTORABLE = [
    {"name": "a\x00b"},
    {"metadata": {"a": "\x00"}},
    {"metadata": {"\ud800": "a"}},
    {"metadata": {str(number): "" for number in range(51)}},
    {"metadata": {"a": "x" * 501}},
    {"metadata": {"a": 5}},
    {"priority": 1001},
]


def test_invalid_text_and_priority_are_refused(database, tenant, dataset):
    for wrong in UNSTORABLE:
        with pytest.raises((InvalidRequest, InvalidConfig)) as raised:
            given.submit_job(database, tenant, dataset, **wrong)
        assert raised.value.errors


def test_events_after_a_cursor(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, *(given.events.Log("info", f"line {n}") for n in range(5)))
    with database.reading() as session:
        first = jobs.events(session, job.id, limit=4)
        rest = jobs.events(session, job.id, after=first.last)
    assert first.has_more
    assert not rest.has_more
    assert [event.seq for event in [*first.items, *rest.items]] == list(range(1, 8))
    assert rest.items[-1].message == "line 4"


def test_poll_returns_last_point_last_event_and_status(database, tenant, dataset):
    job = given.submit_job(database, tenant, dataset)
    given.record_events(database, given.claim_job(database), given.metrics(1, a=1.0, b=2.0))
    with database.reading() as session:
        assert jobs.poll(session, tenant, job.id) == (2, 2, "running")


def test_transitions_by_job(database, tenant, dataset):
    first, second = (given.submit_job(database, tenant, dataset, priority=-n).id for n in range(2))
    given.claim_job(database)
    with database.reading() as session:
        found = jobs.transitions_by_job(session, [first, second])
    statuses = {job: [change.data["status"] for change in changes] for job, changes in found.items()}
    assert statuses == {first: ["queued", "running"], second: ["queued"]}
