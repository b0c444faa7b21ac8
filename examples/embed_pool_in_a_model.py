"""Use the differentiable op, ids to pooled embeddings, in a module of your own under torch.compile.

    python examples/embed_pool_in_a_model.py
"""

import torch
from torch import Tensor, nn

from dendritic_bert.kernels import ops


class BagOfWords(nn.Module):
    """BERT's embeddings, LayerNorm and the mean over the valid tokens, under any head you like."""

    def __init__(self, vocab_size: int, hidden_size: int, num_labels: int, max_length: int = 64) -> None:
        super().__init__()
        self.words = nn.Parameter(0.02 * torch.randn(vocab_size, hidden_size))
        self.positions = nn.Parameter(0.02 * torch.randn(max_length, hidden_size))
        self.types = nn.Parameter(torch.randn(1, hidden_size))
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Sequential(nn.Linear(hidden_size, 32), nn.GELU(), nn.Linear(32, num_labels))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # One op in place of three look-ups, two additions, a LayerNorm and a masked mean. Its kernels write nothing of
        # size [B, L, H] in either direction, and no mask either where p_embed or p_pool asks for dropout.
        pooled = ops.embed_pool(input_ids, self.words, self.positions, self.types, self.norm.weight, self.norm.bias,
                                attention_mask=attention_mask, eps=self.norm.eps)
        return self.head(pooled)


torch.manual_seed(0)
model = BagOfWords(vocab_size=1000, hidden_size=64, num_labels=3)
input_ids = torch.randint(1000, (16, 20))
attention_mask = (torch.arange(20) < torch.randint(1, 21, (16, 1))).long()

eager = model(input_ids, attention_mask)
compiled = torch.compile(model, fullgraph=True)(input_ids, attention_mask)  # the op does not break the graph
compiled.sum().backward()
print(f"compiled - eager: {(compiled - eager).abs().max():.1e}; "
      f"gradient of the words: {tuple(model.words.grad.shape)}")
