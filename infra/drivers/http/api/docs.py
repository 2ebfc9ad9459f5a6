"""The page `/api/v1/docs`: every route with its roles, parameters and examples. Plain HTML, no scripts or assets."""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_STYLE: Final = """
:root{color-scheme:light dark;--line:#d8dee6;--soft:#f4f6f8;--dim:#5b6673;--accent:#0b6e4f}
@media(prefers-color-scheme:dark){:root{--line:#333c47;--soft:#1b2129;--dim:#9aa7b5;--accent:#5cc9a0}
body{background:#12161c;color:#e6ebf0}}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{margin-top:2.2rem;border-bottom:1px solid var(--line);text-transform:capitalize}
details{border:1px solid var(--line);border-radius:6px;margin:.4rem 0;padding:.35rem .7rem}
summary{cursor:pointer;overflow-wrap:anywhere}summary b{color:var(--accent);display:inline-block;min-width:3.2rem}
pre{background:var(--soft);padding:.6rem;border-radius:6px;overflow:auto;max-height:26rem;font-size:.85rem}
table{border-collapse:collapse;width:100%}td{padding:.2rem .8rem .2rem 0;vertical-align:top}
.dim{color:var(--dim);font-size:.9rem}code{overflow-wrap:anywhere}a{color:var(--accent)}
"""


def page(openapi: Mapping[str, Any]) -> str:
    """The whole page."""
    return "".join(_parts(openapi))


def _parts(openapi: Mapping[str, Any]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><meta charset="utf-8"><title>Touchfold API</title>'
    yield f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style>'
    yield "<h1>Touchfold API</h1>"
    yield "<p>Send <code>Authorization: Bearer TOKEN</code> (<code>touchfold token create --role ROLE</code>), or use "
    yield "your session from the pages: requests other than GET then need our own <code>Origin</code> or the "
    yield "header <code>X-CSRF-Token</code> with the <code>csrf_token</code> from <code>GET me</code>. For programs: "
    yield '<a href="openapi.json">openapi.json</a>.</p>'
    areas: dict[str, list[str]] = {}
    for path, methods in openapi["paths"].items():
        for method, route in methods.items():
            areas.setdefault(route["tags"][0], []).append("".join(_route(openapi, method, path, route)))
    for area, routes in areas.items():
        yield f"<h2>{'SQL' if area == 'sql' else escape(area)}</h2>{''.join(routes)}"
    yield "</html>"


def _route(openapi: Mapping[str, Any], method: str, path: str, route: Mapping[str, Any]) -> Iterator[str]:
    first, _, rest = str(route.get("description", "")).partition("\n")
    yield f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> <span class=dim>{_text(first)}"
    yield f"</span></summary><p>{_text(first)} {_text(rest)}</p>"
    yield f"<p class=dim>Roles: {escape(', '.join(route['x-roles']))}</p>"
    if route.get("parameters"):
        rows = "".join(_parameter(each) for each in route["parameters"])
        yield f"<table>{rows}</table>"
    if "requestBody" in route:
        schema = route["requestBody"]["content"]["application/json"]["schema"]
        described = openapi["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        yield f"<p>Body</p>{_example(described['example'])}"
    ((_, content),) = route["responses"]["200"]["content"].items()
    yield f"<p>Answer</p>{_example(content['example'])}</details>"


def _parameter(each: Mapping[str, Any]) -> str:
    what = f"{each['in']}{', required' if each.get('required') else ''}"
    return f"<tr><td><code>{escape(each['name'])}</code><td class=dim>{what}<td>{_text(each.get('description', ''))}"


def _text(text: str) -> str:
    """HTML-escaped text; backquoted parts become code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _example(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return f"<pre>{escape(text)}</pre>"
