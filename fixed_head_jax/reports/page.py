"""A page of HTML in one file: its style, and texts, tables and pictures as its parts."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence

_STYLE = """
:root { color-scheme: light; --ink: #1c2733; --quiet: #667788; --line: #d8dee4; --blue: #1f6fb2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px 16px 64px; color: var(--ink);
  background: #ffffff; font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 36px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
p { margin: 6px 0; max-width: 75ch; }
p.quiet, figcaption { color: var(--quiet); font-size: 13px; }
figure { margin: 12px 0; }
figure svg, figure img.wide { max-width: 100%; height: auto; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
  gap: 8px 24px; align-items: start; }
.table { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td.number { text-align: right; }
.photographs { display: flex; flex-wrap: wrap; gap: 12px; }
.photographs figure { margin: 0; width: 128px; }
.photographs img { width: 128px; height: 128px; object-fit: contain; background: #f3f5f7; }
.photographs img.small { image-rendering: pixelated; }
pre { background: #f3f5f7; padding: 10px 12px; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: 13px; }
a { color: var(--blue); }
"""


def page(title: str, subtitle: str, parts: Iterable[str]) -> str:
    """Returns a whole page that needs nothing from elsewhere."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{_text(title)}</h1>\n<p class="quiet">{_text(subtitle)}</p>\n'
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Returns parts below a title; nothing where all parts are empty."""
    kept = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{_text(title)}</h2>\n{kept}\n</section>" if kept else ""


def paragraph(text: str) -> str:
    """Returns a text as it is."""
    return f"<p>{_text(text)}</p>"


def code(text: str) -> str:
    """Returns text of fixed width, its lines kept."""
    return f"<pre>{_text(text)}</pre>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; cells that are numbers stand to the right."""
    body = ["".join(map(_cell, row)) for row in rows]
    if not body:
        return ""
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    lines = "\n".join(f"<tr>{row}</tr>" for row in body)
    return f'<div class="table"><table>\n<tr>{top}</tr>\n{lines}\n</table></div>'


def markdown_table(text: str) -> str:
    """Returns the tables of a text of Markdown, and its other lines as paragraphs."""
    parts, cells = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if cells:
            parts.append(table(cells[0], cells[2:]))
            cells = []
        if line.strip():
            parts.append(paragraph(line.lstrip("# ")))
    return "\n".join(parts)


def definitions(values: Mapping[str, str]) -> str:
    """Returns names and what they are, one below the other."""
    return table(("", ""), values.items()).replace("<tr><th></th><th></th></tr>\n", "")


def links(targets: Mapping[str, str]) -> str:
    """Returns links, text -> address, one below the other."""
    lines = (f'<a href="{html.escape(to)}">{_text(text)}</a><br>' for text, to in targets.items())
    return f"<p>{''.join(lines)}</p>" if targets else ""


def figure(svg: str, caption: str) -> str:
    """Returns a drawing with what it shows below it."""
    return f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>"


def picture(png: bytes, caption: str, is_small: bool = False, is_wide: bool = False) -> str:
    """Returns a PNG file with a caption; pixels of a small one stay squares."""
    data = base64.b64encode(png).decode()
    kind = "small" * is_small or "wide" * is_wide
    return (
        f'<figure><img class="{kind}" alt="{html.escape(caption)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{_text(caption)}</figcaption></figure>'
    )


def pictures_of(page: str) -> dict[str, bytes]:
    """Returns the PNG files in a page by their captions; numbered where these are alike."""
    found: dict[str, bytes] = {}
    for caption, data in _PICTURE.findall(page):
        name = html.unescape(caption)
        alike = sum(other.startswith(name) for other in found)
        found[f"{name} ({alike + 1})" if alike else name] = base64.b64decode(data)
    return found


_PICTURE = re.compile(r'alt="([^"]*)" src="data:image/png;base64,([^"]*)"')


def side_by_side(*parts: str) -> str:
    """Returns parts next to one another where the page is wide enough."""
    return f'<div class="side">{"".join(parts)}</div>' if any(parts) else ""


def photographs(pictures: Iterable[str]) -> str:
    """Returns pictures in rows."""
    shown = "".join(pictures)
    return f'<div class="photographs">{shown}</div>' if shown else ""


def _cell(text):
    is_number = text.replace(",", "").replace("%", "").strip().replace(".", "", 1).isdigit()
    return f'<td class="number">{_text(text)}</td>' if is_number else f"<td>{_text(text)}</td>"


def _text(text):
    return html.escape(text, quote=False)
