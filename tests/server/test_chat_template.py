"""Chat templates: found, rendered as transformers does, and kept in their sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.errors import UnsupportedModel
from server.chat_template import ChatTemplate
from server.errors import ApiError
from tests.server.conftest import MakeHttp
from tests.server.wire import CHAT, chat, error_of

HI = [{"role": "user", "content": "Hi"}]


def write(folder: Path, **config: Any) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_the_template_is_found_in_its_own_file_first(tmp_path: Path) -> None:
    write(tmp_path, chat_template="from config", bos_token="<s>")
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}from file")
    template = ChatTemplate.load(tmp_path)
    assert template is not None
    assert template.render(HI) == "<s>from file"


@pytest.mark.parametrize(
    "template",
    [
        "{{ eos_token }}",
        [{"name": "x", "template": ""}, {"name": "default", "template": "{{ eos_token }}"}],
    ],
)
def test_the_template_may_be_in_the_tokenizers_configuration(tmp_path: Path, template: Any) -> None:
    loaded = ChatTemplate.load(
        write(tmp_path, chat_template=template, eos_token={"content": "</s>"})
    )
    assert loaded is not None
    assert loaded.render(HI) == "</s>"


def test_a_model_may_have_none(tmp_path: Path) -> None:
    assert ChatTemplate.load(tmp_path) is None
    assert ChatTemplate.load(write(tmp_path)) is None


def test_a_broken_template_is_found_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="broken"):
        ChatTemplate.load(write(tmp_path, chat_template="{% if %}"))


def test_a_file_of_the_operators_takes_the_models_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{{ bos_token }}mine")
    folder = write(tmp_path, chat_template="the model's", bos_token="<s>")
    template = ChatTemplate.load(folder, file)
    assert template is not None
    assert template.render(HI) == "<s>mine"
    with pytest.raises(UnsupportedModel, match="no such file"):
        ChatTemplate.load(folder, tmp_path / "other.jinja")


STRINGS = "{% for m in messages %}{{ m.content | tojson }}{% endfor %}"
PARTS = "{% for m in messages %}{% for p in m['content'] %}[{{ p.text }}]{% endfor %}{% endfor %}"
EITHER = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "of_string", "of_parts"),
    [(STRINGS, '"Hi"', '"a\\nb"'), (PARTS, "[Hi]", "[a][b]"), (EITHER, "Hi", "[a][b]")],
)
def test_contents_have_the_form_the_template_reads(
    source: str, of_string: str, of_parts: str
) -> None:
    parts = [{"type": "text", "text": text} for text in "ab"]
    template = ChatTemplate(source)
    assert template.render(HI) == of_string
    assert template.render([{"role": "user", "content": parts}]) == of_parts
    answer = {"role": "assistant", "content": parts}
    assert template.render([answer], continues=True) == of_parts.rstrip('"]')


async def test_chat_without_a_template_is_refused(make_http: MakeHttp, tmp_path: Path) -> None:
    for file in (tmp_path / "stub-model").iterdir():
        file.unlink()
    response = await make_http().post(CHAT, json=chat())
    assert response.status_code == 400
    assert error_of(response)["code"] == "no_chat_template"


async def test_what_a_template_refuses_is_a_400(make_http: MakeHttp, tmp_path: Path) -> None:
    file = tmp_path / "stub-model" / "chat_template.jinja"
    file.write_text("{{ raise_exception('roles must alternate') }}")
    http: httpx.AsyncClient = make_http()
    response = await http.post(CHAT, json=chat())
    assert response.status_code == 400
    assert error_of(response)["param"] == "messages"
    assert "roles must alternate" in error_of(response)["message"]


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source: str) -> None:
    with pytest.raises(ApiError):
        ChatTemplate(source).render(HI)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("role", "user"),
        ("absent is defined", "False"),
        ("absent or 'none'", "none"),
        ("keys() | list", "['role', 'items']"),
        ("items is callable", "True"),
        ("__class__ is defined", "False"),
    ],
)
def test_a_dictionarys_own_attributes_go_before_its_keys(expression: str, text: str) -> None:
    template = ChatTemplate(f"{{{{ messages[0].{expression} }}}}")
    assert template.render([{"role": "user", "items": "three"}]) == text


def test_json_is_not_escaped_for_html() -> None:
    source = "{{ messages[0].content | tojson }}"
    assert ChatTemplate(source).render([{"role": "user", "content": "<é'&>"}]) == '"<é\'&>"'


def test_blocks_leave_no_lines_and_loops_have_controls() -> None:
    source = "{% for m in messages %}\n  {% if loop.first %}\n{{ m.role }}\n  {% break %}\n"
    source += "  {% endif %}\n{% endfor %}{{ strftime_now('%%') }}"
    assert ChatTemplate(source).render([*HI, *HI]) == "user\n%"


def test_arguments_that_do_not_parse_stay_text() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{bad"}}
    source = "{{ messages[0].tool_calls[0].function.arguments }}"
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert ChatTemplate(source).render([message]) == "{bad"


def test_the_text_is_that_of_transformers() -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    source = Path("examples/concierge/chat_template.jinja").read_text()
    tool = {"type": "function", "function": {"name": "f", "description": "<d>"}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": [1]}'}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "ok", "tool_call_id": "c"},
    ]
    parsed: Any = json.loads(json.dumps(messages))
    parsed[2]["tool_calls"][0]["function"]["arguments"] = {"a": [1]}
    (expected,), _ = utils.render_jinja_template(
        [parsed], tools=[tool], chat_template=source, add_generation_prompt=True
    )
    assert ChatTemplate(source).render(messages, [tool]) == expected
