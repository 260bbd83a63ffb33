"""Logistic regression: training of a grid, standardisation, and selection of a setting."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_core.evaluation import logistic_regression
from ssl_core.evaluation.logistic_regression import ProbeTraining, Scaling, Setting


def blobs(count: int, dim: int = 12, classes: int = 4, spread: float = 0.7) -> tuple[Tensor, Tensor]:
    """Gaussian classes around random centres, which are the same at every call."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % classes
    return centres[labels] + spread * torch.randn(count, dim, generator=generator), labels


def fit_by_autograd(x: Tensor, y: Tensor, setting: Setting, training: ProbeTraining) -> tuple[Tensor, Tensor]:
    """The same full-batch training with torch's own loss, gradient, optimizer and schedule."""
    layer = torch.nn.Linear(x.shape[1], training.classes)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    groups = [{"params": [layer.weight], "weight_decay": setting.weight_decay}, {"params": [layer.bias]}]
    optimizer = torch.optim.SGD(groups, lr=setting.learning_rate, momentum=0.9, nesterov=True)
    for epoch in range(training.epochs):
        for group in optimizer.param_groups:
            group["lr"] = setting.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / training.epochs))
        optimizer.zero_grad()
        F.cross_entropy(layer(x), y).backward()
        optimizer.step()
    return layer.weight.detach().T, layer.bias.detach()


@pytest.mark.parametrize("count", [40, 8])  # 8 images span fewer dimensions than their 12 features
def test_every_setting_of_a_grid_equals_its_own_training_with_autograd(count):
    x, y = blobs(count)
    settings = logistic_regression.build_grid((0.1, 1.0), (0.0, 0.01))
    training = ProbeTraining(classes=4, epochs=30)
    classifiers = logistic_regression.fit(x, y, settings, training)
    for index, setting in enumerate(settings):
        weights, biases = fit_by_autograd(x, y, setting, training)
        columns = slice(index, None, len(settings))
        torch.testing.assert_close(classifiers.weights[:, columns], weights, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(classifiers.biases[columns], biases, rtol=1e-3, atol=1e-4)


def fit_to_one_hot_labels(x: Tensor, y: Tensor, setting: Setting, training: ProbeTraining) -> tuple[Tensor, Tensor]:
    """The same mini-batch training with a matrix of targets, N×C."""
    targets = F.one_hot(y, training.classes).to(x.dtype)
    weights, biases = torch.zeros(x.shape[1], training.classes), torch.zeros(training.classes)
    velocities, step = [torch.zeros_like(weights), torch.zeros_like(biases)], 0
    steps = training.epochs * training.num_batches(len(x))
    for epoch in range(training.epochs):
        for rows in training.shuffle(epoch, len(x)).split(training.batch_size):
            error = (torch.addmm(biases, x[rows], weights).softmax(1) - targets[rows]) / len(rows)
            gradients = (x[rows].T @ error + setting.weight_decay * weights, error.sum(0))
            rate = setting.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            for value, velocity, gradient in zip((weights, biases), velocities, gradients, strict=True):
                velocity.mul_(0.9).add_(gradient)
                value.sub_(rate * (gradient + 0.9 * velocity))
            step += 1
    return weights, biases


def test_labels_as_numbers_train_as_one_hot_labels_do():
    x, y = blobs(600)
    setting, training = Setting(1.0, 1e-3), ProbeTraining(classes=4, epochs=4, batch_size=64)
    found = logistic_regression.fit(x, y, [setting], training)
    for value, expected in zip(
        (found.weights, found.biases), fit_to_one_hot_labels(x, y, setting, training), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("count", "batch_size"), [(500, 64), (500, 512), (9, 64)])  # 9: fewer than the features
def test_training_on_rows_equals_training_on_a_copy_of_them(count, batch_size):
    x, y = blobs(1000)
    rows = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:count].sort().values
    settings = logistic_regression.build_grid((0.1, 1.0), (0.0, 0.01))
    training = ProbeTraining(classes=4, epochs=3, batch_size=batch_size)
    by_rows = logistic_regression.fit(x, y, settings, training, rows)
    by_copy = logistic_regression.fit(x[rows], y[rows], settings, training)
    assert torch.equal(by_rows.weights, by_copy.weights)
    assert torch.equal(by_rows.biases, by_copy.biases)
    for found, expected in zip(by_rows.score(x, y, rows), by_copy.score(x[rows], y[rows]), strict=True):
        assert torch.equal(found, expected)
    selected = [
        logistic_regression.select_setting(x, y, settings, training, 0.1, rows),
        logistic_regression.select_setting(x[rows], y[rows], settings, training, 0.1),
    ]
    assert selected[0] == selected[1]


def test_the_score_does_not_depend_on_the_chunk(monkeypatch):
    x, y = blobs(900)
    classifiers = logistic_regression.fit(x, y, [Setting(0.1, 0.0)], ProbeTraining(classes=4, epochs=2))
    correct, loss = classifiers.score(x, y)
    monkeypatch.setattr(logistic_regression, "_CHUNK_BYTES", 4 * 4 * 7)  # 7 images
    chunked_correct, chunked_loss = classifiers.score(x, y)
    assert torch.equal(correct, chunked_correct)
    torch.testing.assert_close(loss, chunked_loss, rtol=1e-6, atol=0)


def test_scaling_in_place_equals_scaling_a_copy():
    x, _ = blobs(5000)  # more than are scaled at a time
    scaling, given = Scaling.fit(x), x.clone()
    scaled = scaling(x)
    assert torch.equal(x, given)
    assert scaling.scale_(x) is x
    assert torch.equal(x, scaled)
    torch.testing.assert_close(scaled, F.normalize((given - given.mean(0)) / given.std(0, unbiased=False), dim=1))


def test_minibatch_training_learns_and_is_deterministic():
    (x, y), (test_x, test_y) = blobs(1500), blobs(400)
    scaling, training = Scaling.fit(x), ProbeTraining(classes=4, epochs=5, batch_size=64, seed=1)
    first, second = (logistic_regression.fit(scaling(x), y, [Setting(3.0, 0.0)], training) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    correct, loss = first.score(scaling(test_x), test_y)
    assert correct.item() / 400 > 0.95
    assert loss.item() / 400 < 0.3


def test_scaling_is_invariant_to_shift_and_scale_and_drops_constant_features():
    x, _ = blobs(50)
    stretched = torch.cat([x * torch.arange(1.0, 13) + 5, torch.full((50, 1), 3.0)], 1)
    plain, scaled = Scaling.fit(x)(x), Scaling.fit(stretched)(stretched)
    torch.testing.assert_close(scaled[:, :12], plain, rtol=0, atol=1e-5)
    assert (scaled[:, 12] == 0).all()
    torch.testing.assert_close(scaled.norm(dim=1), torch.ones(50))


def test_constant_features_are_scaled_to_zero_and_not_nan():
    scaled = Scaling.fit(torch.ones(5, 3))(torch.ones(5, 3))
    assert (scaled == 0).all()


@pytest.mark.parametrize("count", [60, 2000])  # cross-validated, and held out
def test_the_setting_that_generalises_is_selected(count):
    x, y = blobs(count, spread=1.5)
    useless, good = Setting(1e-9, 1.0), Setting(3.0, 1e-4)
    training = ProbeTraining(classes=4, epochs=10)
    assert logistic_regression.select_setting(Scaling.fit(x)(x), y, [useless, good], training, held_out=0.1) == good


def test_one_label_per_class_selects_the_fallback():
    x, y = blobs(4)
    settings = logistic_regression.build_grid((0.01, 0.1, 1.0), (0.0, 1e-3))
    assert logistic_regression.select_setting(x, y, settings, ProbeTraining(4), held_out=0.1) == Setting(0.1, 1e-3)


def test_ties_go_to_the_lower_loss_and_nan_never_wins():
    settings = [Setting(rate, 0.0) for rate in (1.0, 2.0, 3.0)]
    assert (
        logistic_regression.select_best(settings, torch.tensor([5.0, 5.0, 4.0]), torch.tensor([2.0, 1.0, 0.1]))
        == settings[1]
    )
    assert (
        logistic_regression.select_best(settings, torch.tensor([5.0, 5.0, 5.0]), torch.tensor([math.nan, 3.0, 9.0]))
        == settings[1]
    )


@pytest.mark.parametrize("count", [50, 1200])
def test_held_out_images_have_every_class_and_are_not_all(count):
    labels = torch.arange(count) % 5
    folds = logistic_regression.build_folds(labels, 0.1, ProbeTraining(classes=5))
    for fold in folds:
        assert 0 < fold.sum() < count
        assert len(labels[fold].unique()) == 5
        assert len(labels[~fold].unique()) == 5
    assert len(folds) == (5 if count == 50 else 1)
    if len(folds) == 5:
        assert torch.stack(folds).sum(0).tolist() == [1] * count
    else:
        assert folds[0].sum() == 120


def test_a_single_setting_is_selected_without_training():
    x, y = blobs(60)
    assert logistic_regression.select_setting(
        x, y, [Setting(7.0, 0.5)], ProbeTraining(4, epochs=1), held_out=0.1
    ) == Setting(7.0, 0.5)


def test_a_classifier_of_the_grid_is_selected_by_its_index():
    x, y = blobs(60)
    settings, training = logistic_regression.build_grid((0.1, 1.0), (0.0, 0.01)), ProbeTraining(classes=4, epochs=3)
    whole = logistic_regression.fit(x, y, settings, training)
    for index in range(4):
        torch.testing.assert_close(whole.select(index).compute_logits(x)[:, :, 0], whole.compute_logits(x)[:, :, index])
