"""One of several processes that tune together; run by test_parallel.

python -m tests.adapters.parallel_worker FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from adapters.errors import AdapterError
from adapters.tuning import parallel
from adapters.tuning.layout import Sample
from adapters.tuning.recipe import TuningRecipe
from adapters.tuning.target import TargetModel
from adapters.tuning.trainer import Tuner
from tests.adapters import tiny

RECIPE = TuningRecipe(
    num_prompts=4, num_masks=3, steps=4, conversations=6, groups=5, ranks=5, successor_rank=4
)


def tuner() -> Tuner:
    """The same in every process; nine samples of unequal lengths."""
    samples: list[Sample] = tiny.noise(9)
    return Tuner(TargetModel(tiny.llama()), tiny.SHAPE, RECIPE, samples)


def main(folder: Path) -> None:
    """Tune; then let the loss of one process alone be infinite: all have to stop."""
    torch.set_num_threads(1)
    assert parallel.join("auto") == "auto"
    one = tuner()
    one.fit(folder / "run")
    result = {
        "parameters": [p.detach().clone() for p in one.parameters],
        "gathered": parallel.gather(list(range(7))[parallel.shard()]),
        "of_leader": parallel.of_leader(f"from {parallel.rank()}"),
        "contexts": len(one.contexts._kept),
    }
    if parallel.rank() == 1:
        one.target.head.weight.data[0, 0] = torch.inf
    try:
        one.step()
    except AdapterError as error:
        result["stopped"] = str(error)
    torch.save(result, folder / f"rank{parallel.rank()}.pt")
    parallel.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
