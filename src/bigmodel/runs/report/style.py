"""The style sheet of a page: light and dark, from a phone's width up. No fonts or images from elsewhere."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--muted:#59636e;--grid:#d9dee3;--soft:#f4f6f8;--good:#1a7f37;
--bad:#c62f2f;--c0:#2463c9;--c1:#c2570c;--c2:#12805c;--c3:#8a3ffc;--c4:#b0225e;--c5:#5b6b00;--c6:#0b7c8f;--c7:#7a4b1e}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8ebee;--muted:#9aa5b1;--grid:#363d45;--soft:#1d2126;
--good:#4ac26b;--bad:#ff7b72;--c0:#6ea8ff;--c1:#ff9a4d;--c2:#4fd1a1;--c3:#c09bff;--c4:#ff7fb0;--c5:#c5d14a;--c6:#5cd0e0;
--c7:#d6a878}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.2rem 1rem 4rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC","PingFang SC",
"Microsoft YaHei",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .3rem}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem;padding-bottom:.25rem;border-bottom:1px solid var(--grid)}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
p{margin:.3rem 0}.lead{font-size:1.05rem}.note,caption{color:var(--muted);font-size:.87rem;text-align:left}
.state{display:inline-block;padding:0 .5em;border:1px solid currentColor;border-radius:1em;font-size:.8rem;
vertical-align:.2em}.good{color:var(--good)}.bad{color:var(--bad)}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.8rem 0;font-size:.9rem}a{color:var(--c0)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.6rem;margin:1rem 0;padding:0}
.tiles div{align-self:start;min-height:100%;background:var(--soft);border-radius:8px;padding:.5rem .7rem}
.tiles dt{color:var(--muted);font-size:.82rem}.tiles dd{margin:0;font-size:1.2rem;font-variant-numeric:tabular-nums}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1rem}
figure{margin:0;padding:.6rem .6rem .4rem;background:var(--soft);border-radius:8px;min-width:0}
figcaption{font-weight:600;font-size:.9rem;margin-bottom:.3rem}
svg{display:block;width:100%;height:auto}svg *{stroke-linejoin:round;stroke-linecap:butt}
svg text{font-family:inherit!important}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem .9rem;margin:.2rem 0;padding:0;font-size:.82rem}
.legend i,td i{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.4em}
.scroll{overflow-x:auto;max-width:100%;margin-bottom:.8rem}
.beside{display:flex;flex-wrap:wrap;gap:0 2.5rem;align-items:flex-start}.beside>*{min-width:0}
.beside>figure{width:min(100%,26rem);margin-bottom:.8rem}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .6rem;text-align:left;border-bottom:1px solid var(--grid);vertical-align:top;overflow-wrap:normal}
thead th{color:var(--muted);font-weight:600;white-space:nowrap}.n{text-align:right;white-space:nowrap}
.facts th{color:var(--muted);font-weight:400;white-space:nowrap}.facts td{overflow-wrap:anywhere;min-width:8rem}
.matrix td{text-align:center;min-width:1.9rem;padding:.2rem .15rem;border:1px solid var(--paper);
background:color-mix(in srgb,var(--h,var(--c0)) var(--v,0%),var(--soft))}
.matrix td.hit{--h:var(--c2)}.matrix td.miss{--h:var(--c1)}
.matrix thead th{text-align:center;border:0;white-space:normal;min-width:1.9rem;max-width:6rem;padding:.2rem .15rem}
.matrix tbody th{text-align:right;font-weight:400;white-space:nowrap;border:0}
.heat{width:min(100%,30rem);border:1px solid var(--grid)}.heat img{display:block;width:100%;image-rendering:pixelated}
.bar{display:flex;height:1.1rem;border-radius:4px;overflow:hidden;margin:.4rem 0 .8rem}.bar span{min-width:1px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,10rem),1fr));gap:.7rem}
.cards.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr))}
.card{background:var(--soft);border-radius:8px;padding:.6rem;font-size:.87rem;min-width:0}
.card img{display:block;margin:0 auto .4rem;max-width:100%;min-width:6rem;image-rendering:pixelated;border-radius:4px}
.card audio{width:100%;height:2.2rem}.card dl{margin:0;display:grid;grid-template-columns:auto 1fr;gap:0 .6em}
.card dt{color:var(--muted)}.card dd{margin:0;min-width:0}
blockquote,.passage{margin:.3rem 0;padding:.5rem .7rem;background:var(--soft);border-radius:6px;white-space:pre-wrap;
font:.85rem/1.6 ui-monospace,Menlo,Consolas,"Noto Sans Mono CJK SC",monospace}
.passage mark{color:inherit;background:color-mix(in srgb,var(--c1) var(--v,0%),transparent);border-radius:2px}
ins{color:var(--good);font-weight:600}del{color:var(--bad)}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--c0)}
@media (max-width:34rem){table{font-size:.8rem}th,td{padding:.2rem .3rem}
.facts th,.facts td{display:block}.facts th{border:0;padding-bottom:0}.facts td{padding-top:0}}
@media print{details>*{display:block}nav{display:none}}
"""
