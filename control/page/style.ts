/** The status page's style: the system's fonts and colours, light and dark. */
export const style = `
:root { color-scheme: light dark; --line: #d5d9e0; --soft: #5b6472; --card: #f6f7f9; --good: #12703a;
  --bad: #b3261e; --accent: #1f5fbf; --back: #ffffff; --text: #16191f; }
@media (prefers-color-scheme: dark) { :root { --line: #333a45; --soft: #a3adbb; --card: #1b2028;
  --good: #5fd38d; --bad: #ff8a80; --accent: #8ab4f8; --back: #12151a; --text: #e8ebf0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 2rem; background: var(--back);
  color: var(--text); font: 0.94rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0; }
h1 span { color: var(--soft); font-weight: 400; }
h2 { font-size: 1rem; margin: 1.6rem 0 0.5rem; padding-bottom: 0.2rem;
  border-bottom: 1px solid var(--line); }
h2 span { color: var(--soft); font-weight: 400; }
p { margin: 0.3rem 0; }
#state { font-size: 1.05rem; }
#problem:empty { display: none; }
#problem, .bad { color: var(--bad); }
.good { color: var(--good); }
.soft, footer { color: var(--soft); }
.cards { display: grid; gap: 0.75rem; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: 0.6rem 0.8rem; }
.card h3 { margin: 0; font-size: 0.85rem; font-weight: 600; color: var(--soft); }
.card strong { font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.card svg { display: block; width: 100%; height: 3rem; margin-top: 0.4rem; }
.card path { fill: none; stroke: var(--accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 0.9rem 0.25rem 0; white-space: nowrap; }
td.words { white-space: normal; }
th { font-weight: 600; color: var(--soft); font-size: 0.85rem; }
tbody tr { border-top: 1px solid var(--line); }
.number { text-align: right; }
form { display: flex; flex-wrap: wrap; gap: 0.6rem 1rem; align-items: end; }
label { display: grid; gap: 0.15rem; font-size: 0.85rem; color: var(--soft); }
input, select, button { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--soft); border-radius: 5px; padding: 0.3rem 0.5rem; height: 2.2rem; }
button { background: var(--accent); border-color: var(--accent); color: var(--back); cursor: pointer; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem; margin: 0.7rem 0 0; }
dt { color: var(--soft); }
dd { margin: 0; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: 0.5rem; background: var(--back); padding: 0.4rem; }
`;
