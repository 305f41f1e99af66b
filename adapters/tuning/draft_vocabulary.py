"""Which tokens masks may draft: those that the model uses most.

Every level of a draft tree takes a product with the whole output projection, most of whose tokens
are hardly ever written. Ranked among the frequent ones alone a level costs in proportion less, and
of what is accepted little is lost: what is verified still has the whole vocabulary (FR-Spec, arXiv
2502.14856).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.tuning.layout import Sample


def most_used(samples: Sequence[Sample], size: int, vocab_size: int) -> Tensor | None:
    """int64 `[size]`, ascending; None for the whole vocabulary, where it is no larger.

    By how often the model wrote a token itself, then by how often it stands in the samples at
    all; what stands nowhere by its id, since tokenizers number what they merged most often first.
    """
    if size >= vocab_size:
        return None
    written, seen = Counter[int](), Counter[int]()
    for sample in samples:
        seen.update(sample.token_ids)
        for start, end in sample.spans:
            written.update(sample.token_ids[start:end])
    ranked = sorted(range(vocab_size), key=lambda t: (-written[t], -seen[t], t))
    return torch.tensor(sorted(ranked[:size]))
