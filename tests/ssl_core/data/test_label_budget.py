"""Teaching: which images a run with labels learns from, which labels it is told, and that no image also judges it."""

import numpy as np
import pytest

from ssl_core import config
from ssl_core.data.dataset import Dataset
from ssl_core.data.label_budget import UNLABELLED, LabelBudget
from ssl_core.data.pack import Item, pack
from ssl_core.errors import ConfigUnfit, LabelsNeeded
from tests.ssl_core.digits import items, pack_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Dataset:
    return Dataset.open(pack_digits(tmp_path_factory.mktemp("digits"), train=200, test=40))


@pytest.fixture(scope="module")
def no_test(tmp_path_factory) -> Dataset:
    return Dataset.open(pack_digits(tmp_path_factory.mktemp("train"), train=100, test=0))


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Dataset:
    return Dataset.open(pack_digits(tmp_path_factory.mktemp("bare"), train=60, test=20, labels=False))


def teach(dataset, kind="finetune", card=None, **fields):
    return LabelBudget.of(dataset, config.parse(fields, kind), card)


def teacher_of(dataset):
    return {"classifier": {"classes": dataset.class_names}}


def told(budget):
    return np.flatnonzero(budget.labels.numpy() != UNLABELLED)


def test_all_labelled_training_images_teach_and_the_test_split_judges(digits):
    budget = teach(digits)
    assert budget.rows.tolist() == digits.indices("train").tolist() == told(budget).tolist()
    assert budget.split.test.tolist() == digits.indices("test").tolist()
    assert budget.labels[budget.rows].tolist() == digits.labels[budget.rows].tolist()


@pytest.mark.parametrize("kind", ["finetune", "supervised"])
def test_a_fraction_is_drawn_by_class_and_is_the_same_for_a_seed(digits, kind):
    budget = teach(digits, kind, label_fraction=0.1)
    assert np.bincount(digits.labels[budget.rows]).tolist() == [2] * 10
    assert teach(digits, kind, label_fraction=0.1).rows.tolist() == budget.rows.tolist()
    assert teach(digits, kind, label_fraction=0.1, seed=1).rows.tolist() != budget.rows.tolist()
    assert told(budget).tolist() == budget.rows.tolist()


def test_supervised_and_finetune_are_told_the_same_labels(digits):
    assert teach(digits, "finetune", label_fraction=0.1).rows.tolist() == (
        teach(digits, "supervised", label_fraction=0.1).rows.tolist()
    )


def test_rows_may_be_listed(digits):
    rows = digits.indices("train")[[7, 3, 50]]
    assert teach(digits, label_rows=rows.tolist()).rows.tolist() == sorted(rows.tolist())


def test_a_row_that_cannot_teach_is_named(digits, bare):
    judge = int(digits.indices("test")[0])
    for row in (judge, len(digits)):
        with pytest.raises(ConfigUnfit, match=f"label_rows names {row}"):
            teach(digits, label_rows=[0, row])


def test_without_a_test_split_what_judges_is_held_out_and_not_trained_on(no_test):
    for budget in (teach(no_test), teach(no_test, "distill", teacher_of(no_test))):
        assert len(budget.split.test) == 20
        assert not set(budget.rows) & set(budget.split.test)
        assert len(budget.rows) == 80


def test_images_that_are_listed_do_not_judge(no_test):
    held_out = teach(no_test).split.test[:5]
    budget = teach(no_test, label_rows=held_out.tolist())
    assert budget.rows.tolist() == held_out.tolist()
    assert len(budget.split.test) == 15
    assert not set(budget.rows) & set(budget.split.test)
    with pytest.raises(ConfigUnfit, match="no labelled image to judge"):
        teach(no_test, label_rows=no_test.indices("train").tolist())


def test_labels_of_one_class_teach_nothing(digits, bare):
    same = np.flatnonzero((digits.labels == 3) & (digits.splits == 0))[:4].tolist()
    with pytest.raises(LabelsNeeded, match="two classes"):
        teach(digits, label_rows=same)
    with pytest.raises(LabelsNeeded, match="two classes"):
        teach(digits, label_fraction=0.001)
    with pytest.raises(LabelsNeeded):
        teach(bare)


def test_a_student_needs_no_labels(bare):
    budget = teach(bare, "distill", {"classifier": {"classes": ["a", "b"]}})
    assert (budget.classes, budget.split, told(budget).tolist()) == (["a", "b"], None, [])
    assert budget.rows.tolist() == bare.indices("train").tolist()
    with pytest.raises(LabelsNeeded):
        teach(bare, "distill", {"classifier": {"classes": ["a", "b"]}}, label_weight=0.1)


def test_a_student_learns_from_all_images_and_is_told_labels_where_they_weigh(digits):
    card = teacher_of(digits)
    assert told(teach(digits, "distill", card)).tolist() == []
    budget = teach(digits, "distill", card, label_weight=0.5, label_fraction=0.1)
    assert len(budget.rows) == 200
    assert len(told(budget)) == 20


def test_a_test_split_judges_a_student_that_learned_from_images_without_labels(tmp_path):
    mixed = [*items(60, 0, labels=False), *(Item(f"t{i.name}", i.data, i.label, "test") for i in items(20, 0))]
    pack(mixed, tmp_path, on_bad_file="reject")
    dataset = Dataset.open(tmp_path)
    budget = teach(dataset, "distill", teacher_of(dataset))
    assert budget.split.test.tolist() == dataset.indices("test").tolist()
    assert len(budget.rows) == 60


def test_a_teacher_of_other_classes_teaches_and_is_not_judged_by_these_labels(digits):
    other = {"classifier": {"classes": ["cat", "dog"]}}
    assert teach(digits, "distill", other).split is None
    with pytest.raises(ConfigUnfit, match="classes"):
        teach(digits, "distill", other, label_weight=0.5)


@pytest.mark.parametrize("card", [None, {}, {"classifier": None}])
def test_a_teacher_has_a_classifier(digits, card):
    with pytest.raises(ConfigUnfit, match="no classifier"):
        teach(digits, "distill", card)
