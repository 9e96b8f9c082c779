/**
 * The status page's script, as the browser gets it: asks each second, writes text and nothing else.
 * Whatever comes from the agent goes into text nodes, never into markup.
 */
export const script = `'use strict';
const $ = (id) => document.getElementById(id);
const history = { redirected: [], returned: [], passed: [], dropped: [] };
const remembered = 120;
let before;

function make(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}
function fill(id, rows) {
  const body = $(id).tBodies[0];
  body.replaceChildren(...rows.map((cells) => {
    const row = make('tr');
    row.append(...cells.map(([text, className]) => make('td', text, className)));
    return row;
  }));
}
const count = (value) => value.toLocaleString('en-US');
function scaled(value, unit) {
  const prefixes = ['', 'k', 'M', 'G', 'T'];
  let index = 0;
  while (value >= 999.5 && index < prefixes.length - 1) { value /= 1000; index++; }
  return value.toFixed(index === 0 || value >= 99.95 ? 0 : 1) + ' ' + prefixes[index] + unit;
}
function age(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return seconds + ' s';
  if (seconds < 3600) return Math.floor(seconds / 60) + ' min';
  if (seconds < 86400) return Math.floor(seconds / 3600) + ' h';
  return Math.floor(seconds / 86400) + ' d';
}
function amounts({ counters, kernel }) {
  const sums = { redirected: 0, returned: 0, passed: 0, dropped: 0 };
  for (const [name, { bytes, kind }] of Object.entries(counters)) {
    if (name === 'redirected') sums.redirected += bytes;
    else if (name === 'reinjected') sums.returned += bytes;
    else if (kind === 'forwarded') sums.passed += bytes;
    else if (kind === 'dropped') sums.dropped += bytes;
  }
  for (const [name, { bytes }] of Object.entries(kernel)) {
    if (name.startsWith('passed')) sums.passed += bytes;
    else if (name.startsWith('dropped')) sums.dropped += bytes;
  }
  return sums;
}
function line(values) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 ' + (remembered - 1) + ' 100');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  const most = Math.max(1, ...values);
  const from = remembered - values.length;
  const path = document.createElementNS(svg.namespaceURI, 'path');
  const points = values.map((value, at) => (from + at) + ' ' + (98 - (96 * value) / most).toFixed(1));
  path.setAttribute('d', 'M' + points.join('L'));
  svg.append(path);
  return svg;
}
function showTraffic(status, nowMs) {
  const sums = amounts(status);
  const isSameRun = before && before.startedAt === status.startedAt;
  const seconds = isSameRun ? (nowMs - before.nowMs) / 1000 : 0;
  const cards = Object.entries(history).map(([name, values]) => {
    const rate = seconds > 0 ? Math.max(0, sums[name] - before.sums[name]) * 8 / seconds : 0;
    values.push(rate);
    if (values.length > remembered) values.shift();
    const card = make('div', undefined, 'card');
    card.append(make('h3', name), make('strong', scaled(rate, 'bit/s')), line(values));
    return card;
  });
  $('traffic').replaceChildren(...cards);
  before = { sums, nowMs, startedAt: status.startedAt };
}
function showStatus(status) {
  const isOn = status.state === 'redirecting';
  $('state').textContent = (isOn ? 'Redirecting' : 'Not redirecting: ' + status.state) + ' for ' +
    age(Date.now() - Date.parse(status.since)) + (isOn ? '' : ' (' + status.cause + ')');
  $('state').className = isOn ? 'good' : 'bad';
  const { gate } = status;
  $('gate').textContent = gate.open
    ? 'The gate is open, with ' + (gate.leaseMs / 1000).toFixed(1) + ' s of its lease left: ' +
      gate.sentence + '.'
    : 'The gate is closed: ' + gate.sentence + '.';
  fill('firewalls', status.firewalls.map((one) => [
    [one.name], [one.address],
    [one.usable ? (one.active ? 'active' : 'standby') : one.why, one.usable ? 'good' : 'bad'],
    [one.sinceMs < 0 ? '' : age(one.sinceMs)],
    [one.probe.state === 'answered' ? one.probe.roundTripMs.toFixed(2) + ' ms' : one.probe.state,
      'number'],
    [scaled(one.traffic.sent.bytes, 'B'), 'number'],
    [scaled(one.traffic.returned.bytes, 'B'), 'number'],
  ]));
  fill('rules', status.rules.slice(0, 200).map(({ action, hits, name, never }) => [
    [name], [action], [count(hits), 'number'], [never, 'words soft'],
  ]));
  const drops = Object.values(status.counters).filter(({ kind }) => kind === 'dropped');
  fill('drops', drops.sort((a, b) => b.packets - a.packets).map(({ packets, words }) => [
    [words, 'words'], [count(packets), 'number'],
  ]));
  const names = status.interfaces.map(({ name }) => name).join(', ');
  $('host').textContent = 'on ' + names;
  $('about').textContent = 'microperimeter ' + status.version + ', up ' + age(status.upMs) +
    ', inner MTU ' + status.innerMtu + ', attached by ' + status.attachedBy +
    (status.drift.length === 0 ? '' : '. ' + status.drift.join('. '));
}
function showFlows({ flows, matching }) {
  $('flow-count').textContent = count(matching);
  fill('flows', flows.map((flow) => [
    [flow.protocol], [flow.local + ':' + flow.localPort], [flow.remote + ':' + flow.remotePort],
    [flow.opener === 'egress' ? 'this host' : 'the other end'],
    [flow.verdict, flow.verdict === 'drop' ? 'bad' : ''], [flow.rule], [flow.by],
    [age(flow.ageMs), 'number'], [scaled(flow.egress.bytes + flow.ingress.bytes, 'B'), 'number'],
  ]));
}
async function ask(path, options) {
  const response = await fetch(path, options);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error || 'the agent answered with ' + response.status);
  return body;
}
async function look() {
  try {
    const [{ status, writable }, flows] = await Promise.all([
      ask('api/status'), ask('api/flows?sort=bytes&limit=20'),
    ]);
    $('problem').textContent = '';
    $('act').hidden = !writable;
    if (status.state === 'starting') $('state').textContent = 'The agent is starting';
    else {
      showTraffic(status, performance.now());
      showStatus(status);
      showFlows(flows);
    }
  } catch (error) {
    $('problem').textContent = 'The agent does not answer: ' + error.message;
  }
  setTimeout(look, document.hidden ? 5000 : 1000);
}
function define(target, rows) {
  const list = make('dl');
  for (const [term, text] of rows) if (text) list.append(make('dt', term), make('dd', text));
  $(target).replaceChildren(list);
}
$('explain').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    const answer = await ask('api/explain?' + new URLSearchParams(new FormData(event.target)));
    define('explanation', [
      ['verdict', answer.verdict], ['decided by', answer.decidedBy.kind + ' ' + answer.decidedBy.name +
        (answer.decidedBy.line ? ' (line ' + answer.decidedBy.line + ')' : '')],
      ['but', answer.effect], ['firewall', answer.firewall],
      ['if telemetry is lost', answer.onFailure], ['later packets', answer.laterPackets],
    ]);
  } catch (error) {
    $('explanation').replaceChildren(make('p', error.message, 'bad'));
  }
});
$('reload').addEventListener('submit', async (event) => {
  event.preventDefault();
  const token = new FormData(event.target).get('token');
  try {
    const headers = { authorization: 'Bearer ' + token };
    const answer = await ask('api/reload', { method: 'POST', headers });
    const words = answer.ok ? answer.changed : answer.refused;
    $('reloaded').replaceChildren(make('p', words.length ? words.join('; ') : 'nothing has changed',
      answer.ok ? 'good' : 'bad'));
  } catch (error) {
    $('reloaded').replaceChildren(make('p', error.message, 'bad'));
  }
});
look();
`;
