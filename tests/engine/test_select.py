"""Which attention an engine runs with."""

import pytest
import torch

from engine.attention.sdpa import SdpaStep
from engine.attention.select import pick_backend
from engine.errors import EngineError

CPU = torch.device("cpu")


def test_torchs_own_runs_everywhere() -> None:
    assert pick_backend("sdpa", CPU) is SdpaStep


@pytest.mark.parametrize(("name", "said"), [("triton", "takes a GPU"), ("flash", "not flash")])
def test_what_cannot_be_had_is_refused(name: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        pick_backend(name, CPU)
