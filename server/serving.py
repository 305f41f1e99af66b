"""What the routes of one application share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from server.chat_template import ChatTemplate
from server.client import Client
from server.config import ServerConfig
from server.errors import model_not_found, unavailable
from server.formats import Formats
from server.intake import Intake
from server.logprobs import TokenTexts
from server.metrics import Metrics
from server.prompt_encoder import PromptEncoder
from server.prompt_log import PromptLog
from server.schemas.models import Model
from server.tracing import Tracer, tracer


@dataclass(frozen=True)
class Serving:
    """One application's parts. started: when it was made, seconds since the epoch.

    tracer: where spans go; None where nobody wants any.
    """

    config: ServerConfig
    client: Client
    metrics: Metrics
    template: ChatTemplate | None
    prompt_log: PromptLog
    intake: Intake
    tracer: Tracer | None = None
    started: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, config: ServerConfig, client: Client) -> Serving:
        """The parts that belong to `config` and `client`.

        Raises EngineError where spans are wanted that nothing here can send.
        """
        intake = Intake(config.max_concurrent_requests)
        template = ChatTemplate.load(Path(config.engine.model), config.chat_template)
        return cls(
            config,
            client,
            Metrics(config, client, intake),
            template,
            PromptLog(config.prompt_log),
            intake,
            tracer(config.otlp_traces_endpoint),
        )

    @cached_property
    def token_texts(self) -> TokenTexts:
        """What the model's tokens read as; known once the client has started."""
        return TokenTexts(self.client.tokenizer)

    @cached_property
    def prompt_encoder(self) -> PromptEncoder:
        """Of conversations; known once the client has started."""
        return PromptEncoder(self.client.tokenizer)

    @cached_property
    def formats(self) -> Formats:
        """How the model writes reasoning and calls; known once the client has started."""
        return Formats.of(self.config, self.template, self.client.tokenizer)

    def check_ready(self, num_choices: int = 0) -> None:
        """Before any work for so many choices.

        Raises the 503 of a server whose engine is starting or has gone, or EngineOverloaded.
        """
        if not self.client.is_ready:
            raise unavailable("The engine is not ready.")
        self.client.check_room(num_choices)

    def adapter_for(self, model: str) -> str | None:
        """The adapter a request's `model` selects; None is the engine's default.

        Raises the 404 of a name that is neither the base model's nor an adapter's.
        """
        if model in self.config.model_names:
            return None
        if model in self.client.info.adapters:
            return model
        raise model_not_found(f"The model '{model}' does not exist.")

    def models(self) -> list[Model]:
        """Every name a request may use: the base model's, then the adapters'."""
        root, length = self.config.model_names[0], self.client.info.max_model_len

        def model(name: str, parent: str | None) -> Model:
            return Model(
                id=name, created=self.started, root=root, parent=parent, max_model_len=length
            )

        base = [model(name, None) for name in self.config.model_names]
        return base + [model(name, root) for name in self.client.info.adapters]


async def serving_of(request: Request) -> Serving:
    """The parts of the application that serves `request`."""
    # A coroutine, as FastAPI would run a plain function in a thread.
    serving = request.app.state.serving
    assert isinstance(serving, Serving)
    return serving


ServingDep = Annotated[Serving, Depends(serving_of)]
