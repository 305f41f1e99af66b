"""What a runner leaves behind."""

from __future__ import annotations

import gc
import weakref

from tests import factories


def test_an_engine_that_is_dropped_gives_its_cache_back() -> None:
    """The model stays loaded, to be tuned or served by the next engine; the hook must let go."""
    model = factories.tiny_model("Llama")
    loaded = factories.load(model, "Llama")
    engine = factories.engine(loaded)
    factories.run(engine, factories.requests(factories.prompts(1), max_tokens=2))
    storage = weakref.ref(engine.runner.storage)
    del engine
    gc.collect()
    assert storage() is None
    assert not model.model._forward_hooks
