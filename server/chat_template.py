"""Messages to text, by the model's own Jinja template.

The template comes from the model's folder and is run in a sandbox: it may come from anywhere.
Its environment is that of transformers' `apply_chat_template`, so that the text is the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import UnsupportedModel
from server.errors import invalid

_OURS = {"messages", "tools", "add_generation_prompt", "documents"}
# As in transformers: it ends with a space, to see whether the template strips contents.
_END = "\u2402continue here "
_OF_DICTIONARIES = frozenset(dir(dict))
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class ChatTemplate:
    """A model's template and the special tokens it may name.

    variables: what the template reads besides the conversation; a request may give them.
    source: its Jinja text. A content is given to it as the request gave it where it reads lists of
    parts, else as one string; as a list always where it never asks whether it is a string.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        self._special_tokens = dict(special_tokens or {})
        self.source = source
        environment = _environment()
        self._template = environment.from_string(source)
        tree = environment.parse(source)
        self._reads_parts = any(
            getattr(loop.iter, "attr", None) == "content"
            or (isinstance(loop.iter, nodes.Getitem) and loop.iter.arg == nodes.Const("content"))
            for loop in tree.find_all(nodes.For)
        )
        self._reads_strings = not self._reads_parts or any(
            test.name == "string" for test in tree.find_all(nodes.Test)
        )
        named = meta.find_undeclared_variables(tree)
        self.variables = named - _OURS - set(SPECIAL_TOKENS) - set(environment.globals)

    @property
    def takes_tools(self) -> bool:
        """Whether it shows tools to the model."""
        return "tools" in self.source

    @classmethod
    def load(cls, folder: Path, file: Path | None = None) -> ChatTemplate | None:
        """The template of the model in `folder`, or the one in `file`; None where it has none.

        Raises UnsupportedModel where its template or its configuration cannot be read.
        """
        try:
            return cls._load(folder, file)
        except (jinja2.TemplateSyntaxError, ValueError, OSError) as error:
            place = f"in {folder}" if file is None else str(file)
            raise UnsupportedModel(f"the chat template {place} is broken: {error}") from error

    @classmethod
    def _load(cls, folder: Path, given: Path | None) -> ChatTemplate | None:
        config = _read_json(folder / "tokenizer_config.json")
        file = given or folder / "chat_template.jinja"
        if given is not None and not given.is_file():
            raise FileNotFoundError("there is no such file")
        source = file.read_text("utf-8") if file.is_file() else _named(config.get("chat_template"))
        if source is None:
            return None
        tokens = {name: config[name] for name in SPECIAL_TOKENS if config.get(name) is not None}
        return cls(source, {name: _token_text(token) for name, token in tokens.items()})

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        begins_answer: bool = True,
        continues: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt of a conversation.

        begins_answer: with what begins an assistant's answer behind it. continues: it ends within
        the last message, where that one's content does. variables: of `self.variables`.
        Raises the 400 of variables the template does not read, of messages it refuses.
        """
        for name in variables or {}:
            if name not in self.variables:
                raise invalid(
                    f"The model's chat template reads no '{name}'.", f"chat_template_kwargs.{name}"
                )
        prepared = [self._prepared(message) for message in messages]
        if continues:
            _continued(prepared[-1])
        try:
            text = self._template.render(
                **(variables or {}),
                messages=prepared,
                tools=list(tools) if tools else None,
                add_generation_prompt=begins_answer,
                **self._special_tokens,
            )
        except Exception as error:  # whatever the messages make it trip over
            raise invalid(
                f"The model's chat template refused these messages: {error}", "messages"
            ) from error
        return _until_end(text) if continues else text

    def _prepared(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message as templates expect it.

        Text parts are joined by newlines for templates of plain strings, as in vLLM; `developer` is
        the newer name of `system`; arguments of tool calls become objects where they parse;
        reasoning is `reasoning_content`.
        """
        prepared = dict(message)
        if prepared["role"] == "developer":
            prepared["role"] = "system"
        content = prepared.get("content")
        if isinstance(content, list) and not self._reads_parts:
            prepared["content"] = "\n".join(part["text"] for part in content)
        elif isinstance(content, str) and not self._reads_strings:
            prepared["content"] = [{"type": "text", "text": content}]
        # Templates know the older name; who sends an answer back may have either.
        if reasoning := prepared.pop("reasoning", None):
            prepared.setdefault("reasoning_content", reasoning)
        if calls := prepared.get("tool_calls"):
            prepared["tool_calls"] = [
                {**call, "function": _with_object(call["function"])} for call in calls
            ]
        return prepared


def _continued(message: dict[str, Any]) -> None:
    """Mark the end of what a message says."""
    if isinstance(message["content"], str):
        message["content"] += _END
        return
    *before, last = message["content"]
    message["content"] = [*before, {**last, "text": last["text"] + _END}]


def _until_end(text: str) -> str:
    """What precedes the mark; without spaces where the template takes them off a content's end."""
    before, mark, after = text.rpartition(_END.rstrip())
    if not mark:
        raise invalid("The model's chat template changes the last message.", "messages")
    return before if after.startswith(" ") else before.rstrip()


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own, quicker at what templates do most: `message.role` of a dictionary."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As Jinja's, which looks for an attribute first, and for a key where that fails."""
        if type(obj) is not dict or attribute in _OF_DICTIONARIES:
            return super().getattr(obj, attribute)
        return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: Jinja's own filter escapes for HTML, which models were not trained on."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _with_object(function: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {**function, "arguments": json.loads(function["arguments"])}
    except ValueError:
        return dict(function)


def _read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return content


def _named(templates: str | list[dict[str, str]] | None) -> str | None:
    """The default one where a tokenizer's configuration holds several by name."""
    if not isinstance(templates, list):
        return templates
    by_name = {entry["name"]: entry["template"] for entry in templates}
    return by_name.get("default")


def _token_text(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])
