"""What can go wrong in the engine.

EngineError
├── RequestError(message, field)      the request cannot be served as asked
│   ├── ContextLengthExceeded         prompt (and completion) do not fit the model
│   ├── UnknownAdapter                no adapter of that name is loaded
│   ├── AdapterNameTaken              one is, and another cannot be
│   └── AdapterRefused                the adapter's files cannot be loaded; says why
├── NoFreeSlot                        no slot is left for another adapter
├── UnsupportedModel                  the model cannot be served exactly; says why
├── EngineOverloaded(retry_after)     the waiting queue is full
├── RequestFailed                     computing this request went wrong; others go on
└── EngineDead                        the engine process is gone
    └── EngineStopped                 the server ended it
"""


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""


class RequestError(EngineError):
    """A request that cannot be served; `field` names the offending request field."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ContextLengthExceeded(RequestError):
    """Prompt and completion together are longer than the model's context."""


class UnknownAdapter(RequestError):
    """The request names an adapter that is not loaded."""


class AdapterNameTaken(RequestError):
    """An adapter of that name is loaded already."""


class AdapterRefused(RequestError):
    """An adapter that is ill-formed, of another base, or larger than what was reserved."""


class NoFreeSlot(EngineError):
    """Every adapter slot is taken, perhaps by unloaded adapters whose requests still run."""


class UnsupportedModel(EngineError):
    """The model cannot be served exactly; the message says what stands in the way."""


class EngineOverloaded(EngineError):
    """The waiting queue is full; try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestFailed(EngineError):
    """Computing this request went wrong, and no other."""


class EngineDead(EngineError):
    """The engine process ended or stopped answering."""


class EngineStopped(EngineDead):
    """The engine was told to end: the server stops."""
