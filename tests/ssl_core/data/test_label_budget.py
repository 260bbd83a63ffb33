"""Label budgets: training rows, labels in the budget, and disjoint test rows."""

import numpy as np
import pytest

from ssl_core import config
from ssl_core.data.dataset import Dataset
from ssl_core.data.items import Item
from ssl_core.data.label_budget import UNLABELLED, LabelBudget
from ssl_core.data.pack import pack
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


def make_budget(dataset, kind="finetune", card=None, **fields):
    return LabelBudget.of(dataset, config.parse(fields, kind), card)


def card_of(dataset):
    return {"classifier": {"classes": dataset.class_names}}


def labelled_rows(budget):
    return np.flatnonzero(budget.labels.numpy() != UNLABELLED)


def test_all_labelled_training_images_are_trained_on_and_the_test_split_is_evaluated(digits):
    budget = make_budget(digits)
    assert budget.rows.tolist() == digits.indices("train").tolist() == labelled_rows(budget).tolist()
    assert budget.split.test.tolist() == digits.indices("test").tolist()
    assert budget.labels[budget.rows].tolist() == digits.labels[budget.rows].tolist()


@pytest.mark.parametrize("kind", ["finetune", "supervised"])
def test_a_fraction_is_stratified_and_reproducible_by_seed(digits, kind):
    budget = make_budget(digits, kind, label_fraction=0.1)
    assert np.bincount(digits.labels[budget.rows]).tolist() == [2] * 10
    assert make_budget(digits, kind, label_fraction=0.1).rows.tolist() == budget.rows.tolist()
    assert make_budget(digits, kind, label_fraction=0.1, seed=1).rows.tolist() != budget.rows.tolist()
    assert labelled_rows(budget).tolist() == budget.rows.tolist()


def test_supervised_and_finetune_have_the_same_budget(digits):
    assert make_budget(digits, "finetune", label_fraction=0.1).rows.tolist() == (
        make_budget(digits, "supervised", label_fraction=0.1).rows.tolist()
    )


def test_rows_may_be_listed(digits):
    rows = digits.indices("train")[[7, 3, 50]]
    assert make_budget(digits, label_rows=rows.tolist()).rows.tolist() == sorted(rows.tolist())


def test_an_unusable_row_is_named(digits, bare):
    test_row = int(digits.indices("test")[0])
    for row in (test_row, len(digits)):
        with pytest.raises(ConfigUnfit, match=f"label_rows names {row}"):
            make_budget(digits, label_rows=[0, row])


def test_without_a_test_split_images_are_held_out_of_training(no_test):
    for budget in (make_budget(no_test), make_budget(no_test, "distill", card_of(no_test))):
        assert len(budget.split.test) == 20
        assert not set(budget.rows) & set(budget.split.test)
        assert len(budget.rows) == 80


def test_listed_images_are_not_evaluated_on(no_test):
    held_out = make_budget(no_test).split.test[:5]
    budget = make_budget(no_test, label_rows=held_out.tolist())
    assert budget.rows.tolist() == held_out.tolist()
    assert len(budget.split.test) == 15
    assert not set(budget.rows) & set(budget.split.test)
    with pytest.raises(ConfigUnfit, match="no labelled image to evaluate on"):
        make_budget(no_test, label_rows=no_test.indices("train").tolist())


def test_labels_of_one_class_are_refused(digits, bare):
    same = np.flatnonzero((digits.labels == 3) & (digits.splits == 0))[:4].tolist()
    with pytest.raises(LabelsNeeded, match="two classes"):
        make_budget(digits, label_rows=same)
    with pytest.raises(LabelsNeeded, match="two classes"):
        make_budget(digits, label_fraction=0.001)
    with pytest.raises(LabelsNeeded):
        make_budget(bare)


def test_distillation_needs_no_labels(bare):
    budget = make_budget(bare, "distill", {"classifier": {"classes": ["a", "b"]}})
    assert (budget.classes, budget.split, labelled_rows(budget).tolist()) == (["a", "b"], None, [])
    assert budget.rows.tolist() == bare.indices("train").tolist()
    with pytest.raises(LabelsNeeded):
        make_budget(bare, "distill", {"classifier": {"classes": ["a", "b"]}}, label_weight=0.1)


def test_distillation_trains_on_all_images_and_uses_labels_by_their_weight(digits):
    card = card_of(digits)
    assert labelled_rows(make_budget(digits, "distill", card)).tolist() == []
    budget = make_budget(digits, "distill", card, label_weight=0.5, label_fraction=0.1)
    assert len(budget.rows) == 200
    assert len(labelled_rows(budget)) == 20


def test_distillation_on_unlabelled_images_is_evaluated_on_the_test_split(tmp_path):
    mixed = [*items(60, 0, labels=False), *(Item(f"t{i.name}", i.data, i.label, "test") for i in items(20, 0))]
    pack(mixed, tmp_path)
    dataset = Dataset.open(tmp_path)
    budget = make_budget(dataset, "distill", card_of(dataset))
    assert budget.split.test.tolist() == dataset.indices("test").tolist()
    assert len(budget.rows) == 60


def test_a_teacher_of_other_classes_leaves_no_split(digits):
    other = {"classifier": {"classes": ["cat", "dog"]}}
    assert make_budget(digits, "distill", other).split is None
    with pytest.raises(ConfigUnfit, match="classes"):
        make_budget(digits, "distill", other, label_weight=0.5)


@pytest.mark.parametrize("card", [None, {}, {"classifier": None}])
def test_a_teacher_must_have_a_classifier(digits, card):
    with pytest.raises(ConfigUnfit, match="no classifier"):
        make_budget(digits, "distill", card)
