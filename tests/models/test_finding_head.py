"""Several findings an image: the head, its loss with unknowns left out, and the scores of a stage."""

import dataclasses

import pytest
import torch

from lungseg.config import ModelConfig
from lungseg.errors import UserError
from lungseg.models.losses import binary_cross_entropy_term
from lungseg.models.metrics import StageScores, score_names
from lungseg.models.network import LungNetwork

LOGITS = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
FINDINGS = torch.tensor([[1, -1], [0, 1]], dtype=torch.int8)


def test_pooled_map_plus_bias_is_the_logit_and_maps_are_not_centred(tiny_model: ModelConfig) -> None:
    network = LungNetwork(tiny_model, 3, multi_label=True).eval()
    output = network(torch.rand(2, 1, 64, 64))
    assert network.classifier is not None
    torch.testing.assert_close(output.class_maps.mean((2, 3)) + network.classifier.bias, output.class_logits)
    assert output.class_maps.sum(1).abs().max() > 1e-4
    torch.testing.assert_close(network.probabilities(output.class_logits), output.class_logits.sigmoid())
    # Another finding's weights change nothing of this one's.
    with torch.no_grad():
        network.classifier.project.weight[1:] += 1
    torch.testing.assert_close(network(torch.ones(1, 1, 64, 64)).class_maps[:, 0], _first_map(network))


def _first_map(network: LungNetwork) -> torch.Tensor:
    output = network(torch.ones(1, 1, 64, 64))
    assert network.classifier is not None
    return torch.einsum("k,bkhw->bhw", network.classifier.project.weight[0, :, 0, 0], output.features)


def test_the_loss_is_the_mean_over_what_is_known() -> None:
    weights = torch.tensor([3.0, 1.0])
    term = binary_cross_entropy_term(LOGITS, FINDINGS, weights, label_smoothing=0.0)
    p = LOGITS.sigmoid()
    known = torch.stack([-3 * p[0, 0].log(), -(1 - p[1, 0]).log(), -p[1, 1].log()])
    torch.testing.assert_close(term.mean(), known.mean())
    assert term.weights.tolist() == [1, 2]


def test_what_is_unknown_gives_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_(True)
    binary_cross_entropy_term(logits, FINDINGS, torch.ones(2), 0.1).mean().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad[0, 1] == 0 and (logits.grad != 0).sum() == 3
    nothing = binary_cross_entropy_term(LOGITS, torch.full_like(FINDINGS, -1), torch.ones(2), 0.0)
    assert float(nothing.mean()) == 0


def test_smoothing_moves_the_target_towards_one_half() -> None:
    term = binary_cross_entropy_term(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.int8), torch.ones(1), 0.2)
    assert float(term.mean()) == pytest.approx(0.693147, abs=1e-5)
    sure = binary_cross_entropy_term(torch.full((1, 1), 20.0), torch.ones(1, 1, dtype=torch.int8), torch.ones(1), 0.2)
    assert float(sure.mean()) == pytest.approx(2.0, abs=1e-3)  # 0.1 * 20


def test_scores_of_a_stage_leave_out_what_is_unknown() -> None:
    scores = StageScores(("a", "b"), infection=False, multi_label=True)
    probs = torch.tensor([[0.9, 0.2], [0.4, 0.8], [0.6, 0.7], [0.1, 0.3]])
    findings = torch.tensor([[1, -1], [1, 1], [0, 0], [0, 0]], dtype=torch.int8)
    scores.add_findings(probs[:1], findings[:1])
    scores.add_findings(probs[1:], findings[1:])
    found = scores.compute()
    assert found["auroc_a"] == pytest.approx(0.75) and found["auroc_b"] == pytest.approx(1.0)
    assert found["auroc"] == pytest.approx(0.875)
    assert found["average_precision_b"] == pytest.approx(1.0)
    assert found["sensitivity_a"] == 0.5 and found["specificity_a"] == 0.5 and found["f1_a"] == 0.5
    assert found["sensitivity_b"] == 1 and found["specificity_b"] == 0.5
    assert found["f1_b"] == pytest.approx(2 / 3) and found["f1"] == pytest.approx((0.5 + 2 / 3) / 2)
    assert found.keys() <= set(score_names(("a", "b"), infection=False, multi_label=True))


def test_a_finding_that_all_images_have_has_no_auroc() -> None:
    scores = StageScores(("a", "b"), infection=False, multi_label=True)
    scores.add_findings(torch.rand(3, 2), torch.tensor([[1, 1], [1, 0], [1, -1]], dtype=torch.int8))
    found = scores.compute()
    assert "auroc_a" not in found and found["auroc"] == found["auroc_b"]


def test_a_network_without_lungs_has_no_decoder_and_one_without_classes_no_classifier(tiny_model: ModelConfig) -> None:
    image = torch.rand(2, 1, 50, 70)
    bare = LungNetwork(dataclasses.replace(tiny_model, lung=False), 3).eval()
    output = bare(image)
    assert output.mask_logits.shape == (2, 0, 50, 70) and output.class_logits.shape == (2, 3)
    assert not any(name.startswith(("segmenter.decoder", "segmenter.segm")) for name in bare.state_dict())
    assert output.lung().shape == (2, 50, 70) and not output.lung().any()
    masks = LungNetwork(tiny_model, 0).eval()
    output = masks(image)
    assert output.class_logits.shape == (2, 0) and output.class_maps.shape[:2] == (2, 0)
    assert masks.class_maps(image).shape == output.class_maps.shape and output.top_class().tolist() == [0, 0]
    with pytest.raises(UserError, match="must be true without classes"):
        LungNetwork(dataclasses.replace(tiny_model, lung=False), 0)


def test_one_finding_alone_is_scored() -> None:
    scores = StageScores(("tuberculosis",), infection=False, multi_label=True)
    scores.add_findings(torch.tensor([[0.9], [0.2], [0.6]]), torch.tensor([[1], [0], [1]], dtype=torch.int8))
    found = scores.compute()
    assert found["auroc"] == found["auroc_tuberculosis"] == found["f1"] == 1
