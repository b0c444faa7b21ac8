"""Two encoders with one word table give, apart and together, what models of their own give."""

import pytest
import torch
from windowed_models import windowed_model

from dendritic_bert import DendriticBertForSequenceClassification
from dendritic_bert.pretraining.joint_encoder import JointEncoder


@pytest.fixture
def joint():
    config = windowed_model(num_labels=9, num_dendrites=0, problem_type="regression", hidden_size=19,
                            window_dendrites=16, window_layers=2, pooling="gated_mean", embedding_norm="none",
                            hidden_dropout_prob=0.0).config
    model = JointEncoder(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model


@pytest.mark.parametrize("is_training", [True, False])
def test_both_read_one_table(joint, tmp_path, is_training):
    joint.save_apart(tmp_path / "windows", tmp_path / "bag")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, joint.config.vocab_size, (5, 7), generator=generator)
    mask = torch.arange(7) < torch.tensor([7, 5, 1, 3, 0])[:, None]
    with torch.set_grad_enabled(is_training):
        together = joint.train(is_training)(ids, mask).logits
    models = [DendriticBertForSequenceClassification.from_pretrained(tmp_path / name).double().eval()
              for name in ("windows", "bag")]
    assert [model.config.window_layers for model in models] == [2, 0]
    assert torch.equal(*(model.bert.embeddings.word_embeddings.weight for model in models))
    expected = torch.cat([model(ids, mask).logits for model in models], dim=1)
    torch.testing.assert_close(together.double(), expected, rtol=0, atol=1e-5)


def test_a_file_of_one_encoder_is_not_taken_for_two(joint, tmp_path):
    joint.save_apart(tmp_path / "windows", tmp_path / "bag")
    with pytest.raises(ValueError, match=r"windows lacks bag_gate\.weight, as it holds one encoder and not two: load"):
        JointEncoder.from_pretrained(tmp_path / "windows")


def test_every_parameter_learns(joint):
    ids = torch.arange(1, 13).view(2, 6)
    joint.train()(ids, torch.ones_like(ids)).logits.square().sum().backward()
    assert not [name for name, parameter in joint.named_parameters()
                if parameter.grad is None or not parameter.grad.abs().sum()]
