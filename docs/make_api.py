"""Writes docs/api.md from docs/api.md.in, docs/openapi.json and the error classes of the server.

python docs/make_api.py      after `make openapi`; tests/unit/test_docs.py fails while the page is out of date
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grm_server import errors

DOCS = Path(__file__).parent
Schema = Mapping[str, Any]

CORE_REQUEST = ("query", "responses", "k", "stop", "deadline_s", "seed", "return_samples")
CORE_ANSWER = ("id", "rewards", "se", "ranking", "best", "p_best", "k_used", "stop_reason", "samples")
STOP_RULES = ("FixedStop", "DecidedStop", "StrictStop", "PrecisionStop")

INTERNAL_ERRORS = ("client_gone", "engine_error", "generation_failed")
"""No client receives these codes."""

FRAMEWORK_ERRORS = (
    (404, "not_found", False, "No such route."),
    (405, "method_not_allowed", False, "The route does not support this HTTP method."),
    (422, "invalid_body", False, "A field is missing, unknown or has a wrong value; `param` names it."),
    (500, "internal_error", False, "A fault of the server; its log names the place."),
)
"""(status, code, retryable, meaning) of errors that are not classes of `grm_server.errors`."""


def _line(text: str) -> str:
    """One line, safe in a table cell. Outside of code, `a[i][j]` would be a reference to a heading."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    parts[::2] = [plain.replace("][", "]\\[") for plain in parts[::2]]
    return "`".join(parts)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---" for _ in head], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return "object"
    if "const" in schema:
        return f'`"{schema["const"]}"`'
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_type(option) for option in options if option.get("type") != "null"))
    if schema.get("type") == "array":
        return f"[{_type(schema['items'])}]"
    return str(schema.get("type", "any"))


def _bounds(schema: Schema) -> str:
    """The range of a number, without the ceiling of 1e9 that only keeps integers small."""
    for option in [schema, *schema.get("anyOf", ())]:
        parts = [
            f"{sign} {option[key]:g}"
            for key, sign in (
                ("minimum", "≥"),
                ("exclusiveMinimum", ">"),
                ("maximum", "≤"),
                ("exclusiveMaximum", "<"),
            )
            if key in option and option[key] < 1e9
        ]
        if parts:
            return " " + ", ".join(parts)
    return ""


def _field(name: str, schema: Schema) -> list[str]:
    text = _line(schema.get("description", ""))
    default = schema.get("default")
    if default not in (None, "", False):
        text += f" Default `{default}`."
    return [f"`{name}`", _type(schema) + _bounds(schema), text]


def _fields(schema: Schema, names: Iterable[str] | None = None) -> str:
    properties = schema["properties"]
    chosen = list(properties) if names is None else list(names)
    return _table(("field", "type", "meaning"), (_field(name, properties[name]) for name in chosen))


def _others(schema: Schema, core: Iterable[str]) -> list[str]:
    return [name for name in schema["properties"] if name not in set(core)]


def _routes(document: Schema) -> str:
    rows = []
    for tag in ("rewards", "trainers", "operation"):
        for path, methods in document["paths"].items():
            for method, route in methods.items():
                if route["tags"] == [tag]:
                    summary, text = route["summary"], _line(route.get("description", "")).split(" With `Accept")[0]
                    rows.append([f"`{method.upper()} {path}`", tag, f"{summary}. {text}"])
    return _table(("route", "group", "purpose"), rows)


def _options(document: Schema) -> str:
    parameters = document["paths"]["/get_reward"]["post"]["parameters"]
    rows = [
        [f"`{one['name']}`", _type(one["schema"]), _line(one.get("description", "As in `POST /v1/rewards`."))]
        for one in parameters
    ]
    return _table(("option", "type", "meaning"), rows)


def _stop_rules(schemas: Schema) -> str:
    rows = []
    for name in STOP_RULES:
        schema = schemas[name]
        properties = schema["properties"]
        levels = [f"`{key}`: {_line(value['description'])}" for key, value in properties.items() if key != "rule"]
        rows.append([f"`{properties['rule']['const']}`", _line(schema["description"]), "<br>".join(levels)])
    return _table(("`rule`", "meaning", "options"), rows)


def _error_classes(parent: type[errors.GRMError]) -> Iterable[type[errors.GRMError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _error_classes(child)


def _errors() -> str:
    rows = [
        (error.status, error.code, error.retryable, _line((error.__doc__ or "").split("\n\n")[0]))
        for error in _error_classes(errors.GRMError)
        if error.code not in INTERNAL_ERRORS
    ]
    ordered = sorted([*rows, *FRAMEWORK_ERRORS], key=lambda row: row[:2])
    return _table(
        ("status", "`code`", "retryable", "meaning"),
        ([str(status), f"`{code}`", "yes" if retry else "no", text] for status, code, retry, text in ordered),
    )


def api_page(document: Schema, template: str) -> str:
    """The text of docs/api.md: `template` with its {placeholders} filled in."""
    schemas = document["components"]["schemas"]
    request, answer, sample = schemas["RewardsRequest"], schemas["RewardsResponse"], schemas["SampleOut"]
    parts = {
        "routes": _routes(document),
        "request_core": _fields(request, CORE_REQUEST),
        "request_advanced": _fields(request, _others(request, CORE_REQUEST)),
        "stop_rules": _stop_rules(schemas),
        "answer_text": _line(answer["description"]),
        "answer_core": _fields(answer, CORE_ANSWER),
        "answer_advanced": _fields(answer, _others(answer, CORE_ANSWER)),
        "sample_text": _line(sample["description"]),
        "sample": _fields(sample),
        "usage_text": _line(schemas["Usage"]["description"]),
        "usage": _fields(schemas["Usage"]),
        "timing": _fields(schemas["Timing"]),
        "judgement": _fields(schemas["JudgementResponse"]),
        "options": _options(document),
        "errors": _errors(),
    }
    # Not str.format: the template is full of JSON.
    return re.sub(r"^\{(\w+)\}$", lambda match: parts[match[1]], template, flags=re.MULTILINE)


def main() -> None:
    document = json.loads((DOCS / "openapi.json").read_text("utf-8"))
    template = (DOCS / "api.md.in").read_text("utf-8")
    (DOCS / "api.md").write_text(api_page(document, template), "utf-8")


if __name__ == "__main__":
    main()
