"""Distillation: the student's loss against the paper's equation, and the teacher's preprocessing."""

import numpy as np
import pytest
import torch

from ssl_core import config
from ssl_core.data.label_budget import UNLABELLED
from ssl_core.methods.distillation import Distillation
from ssl_core.methods.losses import soft_cross_entropy
from ssl_core.methods.teacher import Teacher
from ssl_core.models import backbones
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.models.heads import MLP

CPU = torch.device("cpu")


def reference_distillation(student, teacher, temperature):
    """T²·Σ −softmax(teacher/T)·log softmax(student/T), image by image in float64."""
    total = 0.0
    for s, t in zip(*(np.asarray(logits, np.float64) / temperature for logits in (student, teacher)), strict=True):
        target = np.exp(t) / np.exp(t).sum()
        total += -(target * (s - np.log(np.exp(s).sum()))).sum()
    return temperature**2 * total / len(student)


def build_backbone():
    return backbones.build(config.Backbone(name="resnet10", width=0.125, stem="cifar", zero_init_residual=False))


def student(label_weight, temperature=2.0, teacher=None):
    torch.manual_seed(0)
    asked = config.Distill(temperature=temperature, label_weight=label_weight)
    return Distillation(asked, build_backbone(), 3, teacher or (lambda _: TEACHER)).eval()


VIEW = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
TEACHER = torch.randn(4, 3, generator=torch.Generator().manual_seed(3)) * 3


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(1, 2), (5, 7)])
def test_the_loss_equals_the_papers_equation(temperature, shape):
    generator = torch.Generator().manual_seed(1)
    s, t = torch.randn(2, *shape, generator=generator)
    found = soft_cross_entropy(s, t, temperature=temperature)
    assert found.item() == pytest.approx(reference_distillation(s, t, temperature), rel=1e-5)


def test_the_gradient_is_zero_where_student_and_teacher_agree():
    s = TEACHER.clone().requires_grad_()
    soft_cross_entropy(s, TEACHER, temperature=2.0).backward()
    torch.testing.assert_close(s.grad, torch.zeros_like(s), atol=1e-6, rtol=0)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_label_weight_mixes_cross_entropy_and_distillation(weight):
    method, labels = student(weight), torch.tensor([2, UNLABELLED, 0, UNLABELLED])
    logits = method.classifier(method.backbone(VIEW)).detach().double()
    supervised = -(logits[0].log_softmax(0)[2] + logits[2].log_softmax(0)[0]) / 2  # the labelled images alone
    expected = (1 - weight) * reference_distillation(logits, TEACHER, 2.0) + weight * supervised.item()
    assert method([VIEW], labels).loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_labels_has_only_the_distillation_loss():
    hidden = torch.full((4,), UNLABELLED)
    alone, mixed = student(0.0)([VIEW], hidden).loss, student(0.5)([VIEW], hidden).loss
    torch.testing.assert_close(mixed, alone / 2)


def teacher(size, mean, std, head=None):
    torch.manual_seed(5)
    backbone, preprocessing = build_backbone(), Preprocessing.of(size, mean, std)
    width = head.widths[-1] if head is not None else backbone.dim
    return Encoder(backbone, head, preprocessing, classifier=torch.nn.Linear(width, 3))


@pytest.mark.parametrize("head", [None, MLP((64, 5), last_norm="as_hidden")])
def test_the_teacher_normalises_the_students_view_by_its_own_statistics(head):
    encoder = teacher(8, [0.5, 0.4, 0.3], [0.2, 0.1, 0.3], head)
    pixels = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    mine = Preprocessing.of(8, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    view = mine.normalise_(pixels.permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(
        Teacher.of(encoder, mine, CPU)(view), encoder.encode(pixels, "logits"), rtol=1e-4, atol=1e-4
    )


def test_the_teacher_resizes_views_to_its_own_image_size():
    encoder = teacher(16, [0.5] * 3, [0.2] * 3)
    flat = torch.ones(2, 3, 8, 8) * torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1)
    logits = Teacher.of(encoder, encoder.preprocessing, CPU)(flat)
    torch.testing.assert_close(logits, encoder(flat.repeat(1, 1, 2, 2), "logits"), rtol=1e-4, atol=1e-5)


def test_the_teacher_is_neither_trained_nor_in_the_students_state_dict():
    encoder = teacher(8, [0.5] * 3, [0.2] * 3)
    method = student(0.0, teacher=Teacher.of(encoder, encoder.preprocessing, CPU)).train()
    assert not any("teacher" in name for name in method.state_dict())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    method([VIEW], torch.full((4,), UNLABELLED)).loss.backward()
    assert all(p.grad is None for p in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
