"""What models write around and instead of calls, and what is to be made of it."""

from __future__ import annotations

from tests.server.answers import Said

SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string"},
        "days": {"type": "array"},
        "count": {"type": "integer"},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]},
        "any": {},
    },
}
FUNCTIONS = {"weather": SCHEMA, "f": SCHEMA}
ARGUMENTS = '{"place": "Łódź", "days": [1, -2.5e3]}'
OBJECT = f'{{"name": "weather", "arguments": {ARGUMENTS}}}'
LLAMA = f'{{"name": "weather", "parameters": {ARGUMENTS}}}'
FOUND = ("weather", ARGUMENTS)
HERMES = f"<tool_call>\n{OBJECT}\n</tool_call>"
TAG = "<|python_tag|>"


def coder(name: str, **values: str) -> str:
    parameters = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in values.items())
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


CODER = coder("weather", place="Łódź", days="[1, -2.5e3]")


def hermes(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


CASES: dict[str, list[tuple[str, Said]]] = {
    "hermes": [
        ("a < b <tool> \n", ["a < b <tool> \n"]),
        (HERMES, [FOUND]),
        (f"Let me see.\n{HERMES}\n", ["Let me see.", FOUND]),
        (f"{HERMES}\n{HERMES}", [FOUND, FOUND]),
        (f"<tool_call>{OBJECT}<tool_call>{OBJECT}", [FOUND, FOUND]),
        (f"{HERMES}\n\nThere.\n", [FOUND, "There.\n"]),
        ("<<tool_call>x", ["<<tool_call>x"]),
        ("a </tool_call> b", ["a </tool_call> b"]),
        # No call: the text as it was.
        ("a <tool_call>{</tool_call> b", ["a <tool_call>{</tool_call> b"]),
        ("a <tool_call> {} </tool_call> b", ["a <tool_call> {} </tool_call> b"]),
        (hermes('{"x": 1}'), [hermes('{"x": 1}')]),
        (hermes('{"name": ""}'), [hermes('{"name": ""}')]),
        (hermes('{"name": "\\ud800"}'), [hermes('{"name": "\\ud800"}')]),
        (hermes('{"name": "f", "arguments": [1]}'), [hermes('{"name": "f", "arguments": [1]}')]),
        (hermes('{"name": "f", "arguments": "x"}'), [hermes('{"name": "f", "arguments": "x"}')]),
        (f"<tool_call>x{HERMES}", ["<tool_call>x", FOUND]),
        (f'<tool_call>{{"name": "wea\n{HERMES}', ['<tool_call>{"name": "wea', FOUND]),
        ('<tool_call>{"name": "wea', ['<tool_call>{"name": "wea']),
        ("<tool_call>", ["<tool_call>"]),
        # A call that lacks something.
        (f"<tool_call>{OBJECT}", [FOUND]),
        (f"<tool_call>{OBJECT[:-1]}</tool_call>", [FOUND]),
        (f"<tool_call>{OBJECT[:-1]}", [FOUND]),
        (f"<tool_call>{OBJECT}}}</tool_call>", [FOUND, "}</tool_call>"]),
        (f"<tool_call>{OBJECT[:40]}", [("weather", ARGUMENTS[: 40 - 33], "broken")]),
        (
            hermes('{"name": "f", "arguments": {"a": x}}') + " b",
            [("f", '{"a": ', "broken"), "x}}</tool_call> b"],
        ),
        (hermes('{"name": "f"}'), [("f", "{}")]),
        (hermes('{"name": "f", "arguments": ""}'), [("f", "{}")]),
        # Other keys, another order, arguments as text.
        (hermes('{"id": 1, "name": "f", "arguments": {}, "x": [{}]}'), [("f", "{}")]),
        (hermes(f'{{"arguments": {ARGUMENTS}, "name": "weather"}}'), [FOUND]),
        (hermes('{"name": "f", "arguments": "{\\"a\\": 1}"}'), [("f", '{"a": 1}')]),
        (
            hermes('{"name": "f", "arguments": {}, "name": "g"}'),
            [("f", "{}"), ', "name": "g"}</tool_call>'],
        ),
    ],
    "llama3": [
        (LLAMA, [FOUND]),
        (f"\n {LLAMA} \n", [FOUND]),
        (f"{LLAMA}; {LLAMA};{LLAMA}", [FOUND, FOUND, FOUND]),
        (f"{LLAMA}\n{LLAMA}", [FOUND, FOUND]),
        (f"{TAG}{LLAMA}", [FOUND]),
        (f"One moment. {TAG} {LLAMA}; {LLAMA}", ["One moment.", FOUND, FOUND]),
        (f'{{"type": "function", {LLAMA[1:]}', [FOUND]),
        (f"{LLAMA}; then text", [FOUND, "; then text"]),
        (f"{TAG}print(1)", [f"{TAG}print(1)"]),
        (f"Like this: {LLAMA}", [f"Like this: {LLAMA}"]),
        # Bare JSON is a call only if it says so in every respect.
        ('{"name": "Ann", "parameters": {}}', ['{"name": "Ann", "parameters": {}}']),
        ('{"name": "f", "age": 3}', ['{"name": "f", "age": 3}']),
        ('{"name": "f"}', ['{"name": "f"}']),
        ("[1, 2]", ["[1, 2]"]),
        ("[]", ["[]"]),
        ("{}", ["{}"]),
        (f'{TAG}{{"name": "Ann", "parameters": {{}}}}', [("Ann", "{}")]),
        (f"{LLAMA}; {{}}", [FOUND, "; {}"]),
    ],
    "mistral": [
        (f"[TOOL_CALLS][{OBJECT}]", [FOUND]),
        (f"[TOOL_CALLS] [{OBJECT}, {OBJECT}]", [FOUND, FOUND]),
        (f"Well. [TOOL_CALLS]{OBJECT}", ["Well.", FOUND]),
        (f"[TOOL_CALLS]weather{ARGUMENTS}", [FOUND]),
        (f"[TOOL_CALLS]weather{ARGUMENTS}[TOOL_CALLS]f{{}}", [FOUND, ("f", "{}")]),
        (f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}", [FOUND]),
        (f"[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS] {ARGUMENTS} ", [FOUND]),
        ("[TOOL_CALLS][]", ["[TOOL_CALLS][]"]),
        ("[TOOL_CALLS][1]", ["[TOOL_CALLS][1]"]),
        ("[TOOL_CALLS]f[ARG]{}", ["[TOOL_CALLS]f[ARG]{}"]),
        ("[TOOL_CALLS] {}", ["[TOOL_CALLS] {}"]),
        ("[TOOL_CALLS]f g", ["[TOOL_CALLS]f g"]),
        ("[TOOL_CALLS]{", ["[TOOL_CALLS]{"]),
        (f"[TOOL_CALLS][{OBJECT}, 3]", [FOUND, ", 3]"]),
        (f"[TOOL_CALLS][{OBJECT}", [FOUND]),
        ('[TOOL_CALLS]f{"a" 1}', [("f", '{"a" ', "broken"), "1}"]),
        ("[TOOL_CALL", ["[TOOL_CALL"]),
    ],
    "pythonic": [
        ('[weather(place="Łódź", days=[1, -2.5e3])]', [FOUND]),
        ("[f(), f(a=true, b=None,)]", [("f", "{}"), ("f", '{"a": true, "b": null}')]),
        (" [f(a={'k': (1,)})] \n", [("f", '{"a": {"k": [1]}}')]),
        ("[f(a='])\\'\\d')] so", [("f", '{"a": "])\'\\\\d"}'), "so"]),
        ("Yes. <|python_start|>[g.h(x=1)]<|python_end|>", ["Yes.", ("g.h", '{"x": 1}')]),
        ("[f(a=1), f(1)]", [("f", '{"a": 1}'), ", f(1)]"]),
        ("[f(a=1)", [("f", '{"a": 1}')]),
        ("a <|python_end|>", ["a <|python_end|>"]),
        *(
            (text, [text])
            for text in (
                "[g()]",
                "[f(1)]",
                "[f(**a)]",
                "[f(a=b)]",
                "[f(a=)]",
                "[f(a=1",
                "[f(a='\\",
                "[f(a='b\n')]",
                "[f(a=nan)]",
                "[f(a={1: 2})]",
                "[f(a=[1)]",
                "[f(a=1 2)]",
                "[f(a=(]))]",
                "[f, (1)]",
                "[1] says",
                "[]",
            )
        ),
    ],
    "qwen3_coder": [
        ("a < b <tool> <function \n", ["a < b <tool> <function \n"]),
        (CODER, [FOUND]),
        (f"Let me see.\n{CODER}\n{CODER}\n", ["Let me see.", FOUND, FOUND]),
        (CODER.removeprefix("<tool_call>\n"), [FOUND]),
        (CODER.removesuffix("\n</tool_call>"), [FOUND]),
        (CODER.replace("\n", ""), [FOUND]),
        (f"{CODER} so", [FOUND, "so"]),
        (coder("f"), [("f", "{}")]),
        (
            coder("f", place='\n a "b"\\n\n<x></parameter', count="3", other="4"),
            [("f", r'{"place": "\n a \"b\"\\n\n<x></parameter", "count": 3, "other": "4"}')],
        ),
        (coder("f", maybe="3", any='{"a": 1}'), [("f", '{"maybe": 3, "any": {"a": 1}}')]),
        (coder("f", maybe="None", any="True"), [("f", '{"maybe": null, "any": true}')]),
        (coder("f", maybe="true", any="so"), [("f", '{"maybe": "true", "any": "so"}')]),
        (coder("f", count="many", place=""), [("f", '{"count": "many", "place": ""}')]),
        (coder("g", x="1"), [("g", '{"x": "1"}')]),
        # No call, or no whole one.
        ("<tool_call>{}</tool_call>", ["<tool_call>{}</tool_call>"]),
        ("<tool_call>\n<function=f", ["<tool_call>\n<function=f"]),
        ("<function=>\n</function>", ["<function=>\n</function>"]),
        ("<function=f>{}</function>", ["<function=f>{}</function>"]),
        ("<function=f\n>", ["<function=f\n>"]),
        (f"<function=f {CODER}", ["<function=f", FOUND]),
        ("<function=f><parameter=place>\nx", [("f", '{"place": "x', "broken")]),
        ("<function=f><parameter=count>\n1", [("f", '{"count": 1', "broken")]),
        (
            "<function=f><parameter=place>x</parameter>y</function>",
            [("f", '{"place": "x"', "broken"), "y</function>"],
        ),
        ("<function=f><parameter=a b", [("f", "{", "broken"), "a b"]),
    ],
    "json": [
        (OBJECT, [FOUND]),
        (LLAMA, [FOUND]),
        (f" [{OBJECT},\n {OBJECT}]", [FOUND, FOUND]),
        (f"{OBJECT}\n{OBJECT}", [FOUND, FOUND]),
        (f"[{OBJECT}] done", [FOUND, "done"]),
        ('{"place": "Łódź"}', ['{"place": "Łódź"}']),
        (f"No. {OBJECT}", [f"No. {OBJECT}"]),
        (f'{{"arguments": {ARGUMENTS}, "name": "weather"}}', [FOUND]),
        (f'{{"arguments": {ARGUMENTS}}}', [f'{{"arguments": {ARGUMENTS}}}']),
    ],
}
