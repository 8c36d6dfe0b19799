"""Parts of a page that needs no other file: HTML of texts, tables and pictures, without a script and without the net."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

# Scripts and anything from elsewhere are refused by the browser too, should a name ever slip through unescaped
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --quiet: #555; --line: #c9c9c9; --soft: #f2f5f8; --warn: #fff3e0;
  --edge: #b35900; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e8e8e8; --quiet: #adb3ba; --line: #454b52; --soft: #21262c;
  --warn: #3a2a12; --edge: #ffb45c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
p, ul { margin: .5rem 0; max-width: 52rem; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.box { background: var(--soft); border-left: 4px solid #0072B2; padding: .6rem 1rem; margin: 1rem 0; }
.warning { background: var(--warn); border-left-color: var(--edge); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .28rem .65rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, .text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
th:first-child, td:first-child { min-width: 7rem; }
.hash { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .8rem; overflow-wrap: anywhere; white-space: normal;
  text-align: left; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; background: #fff; border: 1px solid var(--line); }
figure:first-of-type img { max-height: 46rem; }
@media print { :root { --paper: #fff; --ink: #000; --quiet: #333; --line: #999; --soft: #fff; --warn: #fff; --edge: #000;
  color-scheme: light; } body { max-width: none; padding: 0; font-size: 10pt; } .box { border: 1px solid #666; }
  .wide { overflow: visible; break-inside: avoid; } table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; }
  th { white-space: normal; }
  tr, figure, .box { break-inside: avoid; } h2 { break-after: avoid; } thead { display: table-header-group; }
  figure img, figure:first-of-type img { max-height: 19cm; margin: 0 auto; border: 0; }
  .quiet { break-inside: avoid; break-after: avoid; } .hash { font-size: 6.5pt; } td.text { overflow-wrap: normal; }
  @page { margin: 15mm; } }
"""


def document(title: str, sections: Iterable[str]) -> str:
    """The whole page of these sections. title: plain text."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escaped(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def escaped(value: object) -> str:
    """Escaped; a number and its % stay on one line."""
    return escape(str(value), quote=True).replace(" %", "\N{NO-BREAK SPACE}%")


def bullets(items: Iterable[str]) -> str:
    """A list of plain texts."""
    return f"<ul>{''.join(f'<li>{escaped(item)}</li>' for item in items)}</ul>\n"


def table_of(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", text: Sequence[int] = ()) -> str:
    """A table of plain texts. text: columns, besides the first, that hold words."""
    kind = [' class="text"' if index in text else "" for index in range(len(heads))]
    head = "".join(f'<th scope="col"{of}>{escaped(item)}</th>' for item, of in zip(heads, kind, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{of}>{escaped(item)}</td>' for item, of in zip(row, kind, strict=True))}</tr>\n"
        for row in rows
    )
    named = f'<p class="quiet">{escaped(caption)}</p>\n' if caption else ""
    return f'{named}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def picture_of(png: bytes, caption: str) -> str:
    """A PNG with its caption, inside the page."""
    said, data = escaped(caption), base64.b64encode(png).decode("ascii")
    return f'<figure><img alt="{said}" src="data:image/png;base64,{data}">\n<figcaption>{said}</figcaption></figure>\n'
