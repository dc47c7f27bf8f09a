"""The report's style sheet: light and dark, narrow and wide."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --faint: #d9dde1; --soft: #60676f;
  --s0: #1f5fbf; --s1: #c2571a; --s2: #2c8a4b; --warn: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --paper: #15181b; --faint: #353b41; --soft: #9aa3ab;
  --s0: #7fb0ff; --s1: #ffa66b; --s2: #77d598; --warn: #ff8a80; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } h3 { font-size: 1rem; margin-bottom: .2rem; }
.headline { font-size: 1.25rem; } .warning { color: var(--warn); } small, figcaption { color: var(--soft); }
section { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 1.5rem; }
section > h2, section > pre, section > article, section > .scroll { grid-column: 1 / -1; }
figure { margin: .5rem 0; } svg { width: 100%; height: auto; }
.scroll, pre { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--faint); white-space: nowrap; }
pre { background: color-mix(in srgb, var(--ink) 5%, transparent); padding: .8rem; font-size: .85rem; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 0 1.5rem; }
.answers p { margin: 0 0 .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.grid line { stroke: var(--faint); } .labels text { fill: var(--soft); font-size: 12px; }
.reference { stroke: var(--soft); stroke-dasharray: 4 4; }
.line { stroke: var(--c); fill: var(--c); stroke-width: 2; }
.line polyline { fill: none; } .line circle { stroke: none; }
.key { margin-left: .8rem; white-space: nowrap; } .key::before { content: "■ "; color: var(--c); }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); }
"""
