"""The frame of a report's page: its style and its head."""

from __future__ import annotations

import html

_STYLE = """
:root { color-scheme: light dark; --ink:#1b1f27; --soft:#5d6675; --faint:#c4cad4; --line:#e3e7ee; --paper:#ffffff;
  --back:#f5f6f9; --accent:#2f62e8; --good:#12805f; --bad:#c03636; }
@media (prefers-color-scheme: dark) { :root { --ink:#e7eaf0; --soft:#9aa4b5; --faint:#4a5262; --line:#2b313c;
  --paper:#181c23; --back:#0f1217; --accent:#7fa2ff; --good:#4cc9a0; --bad:#ff8080; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--back); color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
  "Helvetica Neue",Arial,sans-serif; }
main { max-width:1080px; margin:0 auto; padding:32px 20px 64px; }
h1 { font-size:1.75rem; line-height:1.2; margin:0 0 4px; letter-spacing:-0.01em; }
h2 { font-size:1.15rem; margin:40px 0 12px; }
p, ul { max-width:72ch; margin:10px 0; }
.subtitle { color:var(--soft); margin:0 0 20px; }
code, pre { font:0.88em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace; }
code { background:var(--line); padding:1px 5px; border-radius:4px; overflow-wrap:anywhere; }
pre { background:var(--paper); border:1px solid var(--line); border-radius:10px; padding:12px 14px; overflow-x:auto; }
.tiles { display:grid; grid-template-columns:repeat(auto-fill,minmax(150px,1fr)); gap:12px; margin:16px 0; }
.tile, .card, .plot, .scroll { background:var(--paper); border:1px solid var(--line); border-radius:12px; }
.tile { padding:14px 16px; }
.tile .value { font-size:1.4rem; font-weight:650; font-variant-numeric:tabular-nums; line-height:1.25; }
.tile .label { color:var(--soft); font-size:0.85rem; }
.tile.good .value { color:var(--good); } .tile.bad .value { color:var(--bad); }
.plot { margin:14px 0; padding:14px; overflow-x:auto; }
.plot svg { display:block; width:100%; height:auto; max-height:640px; min-width:440px; }
.plot svg text { font-family:inherit !important; }
figcaption { color:var(--soft); font-size:0.85rem; margin-top:8px; }
.grid { display:grid; grid-template-columns:repeat(auto-fill,minmax(min(100%,var(--least)),1fr)); gap:14px;
  margin:14px 0; }
.card { margin:0; padding:10px; }
.pair { display:flex; gap:6px; } .pair img { flex:1 1 0; min-width:0; width:100%; height:auto; border-radius:6px;
  display:block; }
img.blocks { image-rendering:pixelated; }
.scroll { overflow-x:auto; margin:14px 0; }
table { border-collapse:collapse; width:100%; font-size:0.9rem; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:7px 12px; border-bottom:1px solid var(--line); white-space:nowrap; }
th { color:var(--soft); font-weight:600; } tr:last-child td { border-bottom:0; } .number { text-align:right; }
@media (max-width:520px) { main { padding:20px 14px 48px; } .tiles { grid-template-columns:repeat(2,1fr); } }
"""


def html_page(title: str, subtitle: str, body: str) -> str:
    """The whole page; ``title`` and ``subtitle`` are escaped, ``body`` is HTML."""
    below = f'<p class="subtitle">{html.escape(subtitle)}</p>' if subtitle else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main><h1>{html.escape(title)}</h1>{below}\n{body}\n</main></body></html>\n"
    )
