"""The page's style sheet and script, so that it loads nothing from a network."""

CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d5dae0;--card:#f6f8fa;--accent:#0a58a8;
--warn-bg:#fff4d6;--warn-fg:#5c4100;--warn-line:#d9a400;--c0:#1b1f24;--c1:#0072b2;--c2:#d55e00;--c3:#007a5a;--c4:#a63d7e;
--c5:#8a6100}
@media screen and (prefers-color-scheme:dark){
:root{--bg:#14171b;--fg:#e8ebee;--soft:#a2acb7;--line:#383f47;--card:#1d2126;
--accent:#7cb8f5;--warn-bg:#33290b;--warn-fg:#ffe39a;--warn-line:#a07c10;--c0:#e8ebee;--c1:#56b4e9;--c2:#ff9b57;--c3:#3cc79b;
--c4:#e59ac4;--c5:#e3b341}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--fg);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
main,header,footer{max-width:72rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .6rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;line-height:1.3;margin:2.6rem 0 .6rem;padding-top:.9rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;line-height:1.3;margin:1.4rem 0 .4rem;overflow-wrap:anywhere}
p,ul,ol{max-width:46rem;margin:.5rem 0;overflow-wrap:break-word}
li{margin:.15rem 0}
.lead{font-size:1.1rem}
a{color:var(--accent)}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
code,pre{font:.875rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.7rem .9rem;margin:.6rem 0;
overflow-x:auto}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;list-style:none;padding:0;max-width:none}
.soft,figcaption,.unit{color:var(--soft)}
figcaption{font-size:.9rem;margin-top:.35rem}
figure{margin:0;min-width:0}
.keys{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,9.5rem),1fr));gap:.7rem;margin:1.1rem 0;
padding:0}
.keys div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .8rem}
.keys dt{color:var(--soft);font-size:.85rem}
.keys dd{margin:0;font-size:1.3rem;font-weight:600;line-height:1.35;font-variant-numeric:tabular-nums}
.keys dd small{display:block;color:var(--soft);font-size:.8rem;font-weight:400}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.2rem;margin:.8rem 0;max-width:60rem}
.facts dt{color:var(--soft)}
.facts dd{margin:0;min-width:0;overflow-wrap:anywhere}
@media (max-width:34rem){.facts{display:block}.facts dd{margin-bottom:.5rem}}
.warning{background:var(--warn-bg);color:var(--warn-fg);border-left:4px solid var(--warn-line);border-radius:4px;
padding:.5rem .9rem;margin:1rem 0;max-width:60rem}
.warning ul{padding-left:1.2rem}
.warning h2{border:0;margin:0;padding:0;font-size:1.05rem}
.scroll{overflow-x:auto;max-width:100%;margin:.7rem 0}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
figure.table{margin:.9rem 0}
figure.table .scroll{margin:.2rem 0}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:top}
th{font-weight:600}
thead th{border-bottom:2px solid var(--soft);vertical-align:bottom}
tr>:first-child{text-align:left;padding-left:0}
td.text,th.text{text-align:left}
tbody th{font-weight:500}
@media (max-width:34rem){th,td{padding:.3rem .45rem}tbody th:first-child{white-space:normal;min-width:7.5rem}}
th code{white-space:nowrap}
tbody tr.strong>*{font-weight:650;border-top:1px solid var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1.6rem 1.8rem;
margin:.9rem 0;
align-items:start}
.card h3{margin-top:0}
svg.chart{display:block;width:100%;max-width:30rem;height:auto}
svg.chart text{fill:var(--fg);font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
svg.chart text.soft{fill:var(--soft)}
svg.chart .axis{stroke:var(--line);stroke-width:1}
svg.chart .whisker{stroke:var(--fg);stroke-width:1;fill:none}
svg.chart .box{stroke:var(--fg);stroke-width:1;fill-opacity:.85}
svg.chart .median{stroke:#000;stroke-width:2.5}
svg.chart .point{fill:var(--fg);fill-opacity:.45}
svg .curve{fill:none;stroke:var(--day);stroke-width:2;stroke-linejoin:round}
svg .dot{fill:var(--day)}
svg .area{fill:var(--day);fill-opacity:.25;stroke:var(--day);stroke-width:1.5}
svg .dashed{stroke-dasharray:5 3}
svg .fine{stroke-width:1.5}
svg.chart .ink{fill:var(--day)}
@media screen and (prefers-color-scheme:dark){svg .curve{stroke:var(--night)}svg .dot{fill:var(--night)}
svg .area{fill:var(--night);stroke:var(--night)}svg.chart .ink{fill:var(--night)}}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1rem;list-style:none;margin:.3rem 0;padding:0;font-size:.9rem}
.legend svg{width:1.6rem;height:.8rem;vertical-align:-.05rem;margin-right:.4rem}
.viewer .stack{position:relative;background:#000;border-radius:4px;overflow:hidden;width:100%;max-width:32rem}
.viewer .slice{position:absolute;inset:0;margin:0}
.viewer .slice[hidden]{display:none}
.viewer img,.viewer .slice svg{position:absolute;inset:0;width:100%;height:100%}
.viewer .slice path{fill:none;stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.viewer .slice svg{filter:drop-shadow(0 0 1px #000) drop-shadow(0 0 1px #000)}
.viewer .slice .reference path{stroke-dasharray:5 4}
.viewer.no-reference .reference,.viewer.no-prediction .prediction{display:none}
.controls{display:grid;grid-template-columns:auto 1fr auto;gap:.2rem .7rem;align-items:center;margin:.5rem 0;
max-width:32rem}
.controls input[type=range]{width:100%;min-width:0;height:2rem;accent-color:var(--accent)}
.controls output{font-variant-numeric:tabular-nums;min-width:4.2rem;text-align:right}
.ticks{display:flex;flex-wrap:wrap;gap:.2rem 1.4rem;border:0;margin:0;padding:0}
.ticks label{display:inline-flex;gap:.45rem;align-items:center;min-height:2rem}
.ticks input{width:1.1rem;height:1.1rem;accent-color:var(--accent)}
.picture{background:#fff;border-radius:4px;border:1px solid var(--line)}
.picture img{display:block;max-width:none}
img.fit{width:100%;height:auto}
details{margin:.8rem 0}
summary{cursor:pointer;color:var(--accent);padding:.2rem 0}
footer{margin:3rem auto 2rem;color:var(--soft);font-size:.9rem}
@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--soft:#444;--line:#bbb;--card:#fff;--accent:#000}
nav,.ticks,.controls input,details:not([open]){display:none}body{font-size:10pt}h2{break-after:avoid}
.card,figure,tr{break-inside:avoid}.scroll{overflow:visible}
table{font-size:.8rem}th,td{white-space:normal;padding:.2rem .35rem}.picture img{max-width:100%;height:auto}
pre{white-space:pre-wrap;overflow-wrap:anywhere}.cards{grid-template-columns:repeat(3,1fr)}}
"""

SCRIPT = """
"use strict";
for (const viewer of document.querySelectorAll(".viewer")) {
  const slices = [...viewer.querySelectorAll(".slice")];
  const range = viewer.querySelector("input[type=range]");
  const told = viewer.querySelector("output");
  const show = () => {
    slices.forEach((slice, k) => { slice.hidden = k !== range.value - 1; });
    const shown = slices[range.value - 1];
    told.textContent = shown.dataset.name;
    range.setAttribute("aria-valuetext", "slice " + shown.dataset.name);
  };
  range.disabled = false;
  range.addEventListener("input", show);
  for (const box of viewer.querySelectorAll("input[type=checkbox]")) {
    box.disabled = false;
    box.addEventListener("change", () => viewer.classList.toggle("no-" + box.value, !box.checked));
  }
  show();
}
"""
