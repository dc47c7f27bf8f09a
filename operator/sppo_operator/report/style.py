"""The report's style sheet: light and dark, narrow and wide, and on paper."""

STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f8; --card: #fff; --ink: #1a1d21; --soft: #575e66; --faint:
  #e1e4e8; --grid: #e9ebee; --good: #0b6b47; --bad: #b42318; --unsure: #7a4d00; --good-bg: #e3f4ec; --bad-bg:
  #fdecea; --unsure-bg: #fdf3dc; --s0: #005f9e; --s1: #b04a00; --s2: #00735a; --done: #4f8fc4; --waiting: #b9c0c8;
  --on: #fff; --bar: #2f6f9f; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #121417; --card: #1a1d21; --ink: #e8eaed;
  --soft: #a3abb4; --faint: #2e3338; --grid: #282d32; --good: #5fd3a2; --bad: #ff9287; --unsure: #f1bd5d;
  --good-bg: #12301f; --bad-bg: #3a1a17; --unsure-bg: #342710; --s0: #6bb8f0; --s1: #f5a25d; --s2: #4fd0ae;
  --waiting: #565e67; --on: #fff; --bar: #2f6f9f; } }
@media print { :root { color-scheme: light; --paper: #fff; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; print-color-adjust: exact; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 84rem; margin: 0 auto; padding: 1.5rem clamp(.8rem, 3vw, 2.5rem) 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; } h2 { font-size: 1.3rem; margin: 0 0 .8rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .6rem; } h4 { font-size: 1rem; margin: 0; font-weight: 600; }
.kind { margin: 0; color: var(--soft); font-size: .85rem; letter-spacing: .08em; text-transform: uppercase; }
.phase { display: inline-block; vertical-align: .3em; font-size: .85rem; line-height: 1.6; padding: 0 .7em;
  border-radius: 1em; color: var(--c); background: var(--b); }
.good { --c: var(--good); --b: var(--good-bg); } .bad { --c: var(--bad); --b: var(--bad-bg); }
.unsure { --c: var(--unsure); --b: var(--unsure-bg); }
.verdict { font-size: clamp(1.15rem, 2.2vw, 1.5rem); line-height: 1.4; margin: .8rem 0 .3rem; max-width: 46em;
  text-wrap: pretty; }
.verdict b { color: var(--c); font-weight: 650; } .about, .note, .facts, .empty { color: var(--soft); }
.about { margin: 0; font-size: .95rem; } .note { margin: 0 0 1rem; max-width: 60em; }
header ul { list-style: none; margin: 1.2rem 0 0; padding: 0; display: grid; gap: .5rem; }
header li { background: var(--b); border-left: 4px solid var(--c); border-radius: 4px; padding: .5rem .9rem; }
header li b, header li span { color: var(--c); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 8.8rem), 1fr)); gap: .8rem;
  margin: 1.5rem 0; }
.cards div, section { background: var(--card); border: 1px solid var(--faint); border-radius: 10px; }
.cards div { padding: .7rem 1rem; } .cards dt { color: var(--soft); font-size: .88rem; }
.cards dd { margin: 0; color: var(--soft); font-size: .88rem; }
.cards b { display: block; color: var(--ink); font-size: 1.7rem; line-height: 1.3; font-weight: 650; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 0 0 1rem; } a { color: var(--s0); }
section { padding: 1.2rem clamp(.8rem, 2vw, 1.6rem) 1.4rem; margin-top: 1.2rem; scroll-margin-top: 1rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1.4rem 2rem;
  grid-auto-flow: dense; }
.charts > .chart { display: grid; grid-template-rows: subgrid; grid-row: span 2; gap: .2rem; }
.charts > .table, .charts > .note { grid-column: 1 / -1; margin: 0; grid-row: span 2; }
.charts > .note { align-self: center; font-size: .95rem; }
@media (min-width: 78rem) { .charts > .table { grid-column: span 2; } .charts > .note { grid-column: span 1; } }
#training .charts > .note, #health .charts > .note { grid-column: 1 / -1; }
@media (min-width: 78rem) { #health .charts > .note { grid-column: span 2; } }
figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; font-size: .95rem; }
.chart svg[role=img] { display: block; width: 100%; height: auto; max-width: 34rem; overflow: visible; }
.keys { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-weight: 400; font-size: .88rem; color: var(--soft); }
.key svg { width: .85em; height: .85em; margin-right: .35em; vertical-align: -.05em; }
svg text { fill: var(--soft); font: 12.5px system-ui, "Segoe UI", sans-serif; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--grid); fill: none; }
.mark { stroke: var(--soft); stroke-width: .8; opacity: .55; fill: none; }
.reference { stroke: var(--soft); stroke-dasharray: 4 4; fill: none; } .s0 { --c: var(--s0); }
.s1 { --c: var(--s1); } .s2 { --c: var(--s2); }
.line polyline { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
.interval { stroke: var(--c); stroke-width: 1.4; fill: none; } .dot { fill: var(--c); }
.ends text { fill: var(--c); font-weight: 600; }
.timeline .rows { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0 .8rem; align-items:
  center; font-size: .88rem; margin-top: .5rem; }
.timeline .rows svg { display: block; background: linear-gradient(var(--grid), var(--grid)) bottom / 100% 1px
  no-repeat; }
.unit { color: var(--soft); } .timeline .rows svg.scale { background: none; } rect.done { fill: var(--bar); }
rect.running { fill: var(--s2); } rect.lost { fill: var(--bad); } rect.waiting { fill: var(--waiting); }
svg text.on-done, svg text.on-lost, svg text.on-running { fill: #fff; font-size: 11.5px; }
.table { margin-top: 1.2rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .94rem; }
th, td { text-align: left; padding: .34rem 1.2rem .34rem 0; border-bottom: 1px solid var(--faint); white-space:
  nowrap; font-weight: 400; }
thead th { color: var(--soft); font-size: .88rem; } tfoot th, tfoot td { font-weight: 600; border-bottom: 0; }
.wordy td:last-child { white-space: normal; min-width: 12rem; } section > .note:last-child { margin: 0; }
@media (max-width: 40rem) { th, td { padding-right: .8rem; } }
pre { overflow: auto; max-height: 34rem; background: var(--paper); border: 1px solid var(--faint); border-radius:
  6px; padding: .8rem 1rem; font: .85rem/1.5 ui-monospace, monospace; overflow-wrap: normal; user-select: all; }
details { margin-top: 1.2rem; } summary { cursor: pointer; font-weight: 600; }
article { border-top: 1px solid var(--faint); padding: .9rem 0; }
.facts, .empty { margin: .1rem 0; font-size: .88rem; }
.facts b { color: var(--ink); font-weight: 600; margin-left: .5em; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: .5rem
  1.5rem; margin-top: .5rem; }
.answer { min-width: 0; }
blockquote { margin: .2rem 0 0; padding: .5rem .8rem; background: var(--paper); border-radius: 6px; white-space:
  pre-wrap; max-height: 18rem; overflow: auto; unicode-bidi: isolate; }
h4, blockquote { overflow-wrap: anywhere; } h4 { max-height: 8rem; overflow: auto; white-space: pre-wrap; }
@media print { main { padding: 0; max-width: none; } nav { display: none; } section { border: 0; padding: 0; }
  figure, tr, article, header li, .cards div { break-inside: avoid; } h2, h3 { break-after: avoid; } pre,
  blockquote, h4 { max-height: none; white-space: pre-wrap; overflow-wrap: anywhere; } .scroll { overflow: visible; }
  td { white-space: normal; } details::details-content { content-visibility: visible; block-size: auto; } }
"""
