"""The dendritic head of a Dendritic Semantic Network (DSN), applied where the pooled row still lies in registers.

    logits = y + sum_k top_k * a_k       a_k = f(z_k + sum_{j<k} lateral_kj * a_j)

y is the main layer and z_k the layer of dendrite k. All layers are rows of one matrix ``[(1 + N) * C, H]``.
"""

import triton
import triton.language as tl

# The place of each name in ``contract.ACTIVATIONS``; gelu is the last.
SIGMOID = tl.constexpr(0)
TANH = tl.constexpr(1)
RELU = tl.constexpr(2)


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    if ACTIVATION == SIGMOID:
        a = tl.sigmoid(z)
    elif ACTIVATION == TANH:
        a = 2 * tl.sigmoid(2 * z) - 1
    elif ACTIVATION == RELU:
        a = tl.where(z < 0, 0.0, z)  # tl.maximum would hide NaN
    else:
        a = 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))
    return a


@triton.jit
def apply_layer(x, beta_share, first, c, head, HIDDEN_SIZE: tl.constexpr, NUM_LABELS: tl.constexpr,
                BLOCK_H: tl.constexpr):
    """Labels ``c [C]`` of the layer whose first row in the stacked head is ``first``, on ``x [R, H]`` -> ``[R, C]``.
    ``beta_share [R]`` is the number of times that x holds beta.

    It multiplies in float32 and without tensor cores, because tf32 costs 4e-4 to 3e-3 in the logits.
    """
    weight, bias, beta_bias, _, _ = head
    h = tl.arange(0, BLOCK_H)
    known = c < NUM_LABELS
    w = tl.load(weight + (first + c).to(tl.int64)[:, None] * HIDDEN_SIZE + h[None, :],
                mask=known[:, None] & (h < HIDDEN_SIZE)[None, :], other=0.0)
    z = tl.sum(x[:, None, :] * w[None, :, :], axis=2)
    return (z + tl.load(bias + first + c, mask=known, other=0.0)[None, :]
            + beta_share[:, None] * tl.load(beta_bias + first + c, mask=known, other=0.0)[None, :])


@triton.jit
def add_dendrite(y, z, activations, k: tl.constexpr, c, lateral, top, NUM_LABELS: tl.constexpr,
                 NUM_DENDRITES: tl.constexpr, ACTIVATION: tl.constexpr):
    """Add dendrite k, whose layer is ``z [R, C]``, to ``y [R, C]``. ``activations`` are those of the dendrites before
    it; returned with its own."""
    known = c < NUM_LABELS
    for j in tl.static_range(k):
        below = lateral + (k * NUM_DENDRITES + j) * NUM_LABELS
        z += tl.load(below + c, mask=known, other=0.0)[None, :] * activations[j]
    a = activate(z, ACTIVATION)
    y += a * tl.load(top + k * NUM_LABELS + c, mask=known, other=0.0)[None, :]
    return y, activations + (a,)


@triton.jit
def store_logits(x, beta_share, row, stored, head, logits, HIDDEN_SIZE: tl.constexpr, NUM_LABELS: tl.constexpr,
                 NUM_DENDRITES: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr):
    """Apply the head to ``x [R, H]`` and write the result to rows ``row [R]`` of the logits where ``stored``."""
    _, _, _, lateral, top = head
    for label in range(0, NUM_LABELS, BLOCK_C):
        c = label + tl.arange(0, BLOCK_C)
        known = c < NUM_LABELS
        y = apply_layer(x, beta_share, 0, c, head, HIDDEN_SIZE, NUM_LABELS, BLOCK_H)
        activations = ()
        for k in tl.static_range(NUM_DENDRITES):
            z = apply_layer(x, beta_share, (1 + k) * NUM_LABELS, c, head, HIDDEN_SIZE, NUM_LABELS, BLOCK_H)
            y, activations = add_dendrite(y, z, activations, k, c, lateral, top, NUM_LABELS, NUM_DENDRITES, ACTIVATION)
        tl.store(logits + row[:, None] * NUM_LABELS + c[None, :], y, mask=stored[:, None] & known[None, :])
