"""What the engine counts of its own work."""

from engine.stats import PHASES
from tests import factories


def test_every_phase_of_a_step_is_timed() -> None:
    model = factories.tiny_model("Llama")
    adapters = {"bita": factories.random_adapter(model)}
    engine = factories.engine(factories.load(model, "Llama"), adapters)
    assert engine.step() == []
    assert not any(engine.stats().step_seconds.values()), "an idle engine counts no time"
    factories.run(engine, factories.requests([[1, 2, 3]]))
    seconds = engine.stats().step_seconds
    assert set(seconds) == set(PHASES)
    assert all(value > 0 for value in seconds.values())
