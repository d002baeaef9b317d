// The "Events" drawer: shows a developer what each click sent, and what became of it. It watches track.js and the SDK; the shop does not
// know that it is there.

import { html } from './markup.js';
import { onCall } from './track.js';

const { endpoint, writeKey } = window.SHOP_CONFIG;
const KEPT = 200; // entries in the list; a page left open all day must not grow without bound

const root = document.getElementById('drawer');
root.innerHTML = html`<section class="drawer" id="drawer-panel" aria-label="Tracking events" hidden data-testid="drawer">
    <header>
      <h2>Events</h2>
      <button type="button" class="link" id="drawer-flush">Send now</button>
      <button type="button" class="link" id="drawer-clear">Clear</button>
    </header>
    <p class="drawer-status" id="drawer-status" data-testid="delivery-status"></p>
    <ol id="drawer-list" data-testid="drawer-list"></ol>
  </section>
  <button class="drawer-toggle" type="button" aria-expanded="false" aria-controls="drawer-panel" data-testid="drawer-toggle"><i></i>Events <b id="drawer-count">0</b></button>`;

const panel = document.getElementById('drawer-panel');
const toggle = root.querySelector('.drawer-toggle');
const list = document.getElementById('drawer-list');
const status = document.getElementById('drawer-status');

toggle.addEventListener('click', () => {
  panel.hidden = !panel.hidden;
  toggle.setAttribute('aria-expanded', String(!panel.hidden));
});
panel.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape') return;
  toggle.click();
  toggle.focus();
});
document.getElementById('drawer-flush').hidden = !writeKey;
document.getElementById('drawer-flush').addEventListener('click', () => window.firsthop.flush());
document.getElementById('drawer-clear').addEventListener('click', () => list.replaceChildren());

// ---- Calls

let calls = 0;
let newest = null;

/** Entries in the list whose fate is not known yet, by the call's number. */
const waiting = new Map();

onCall((method, args) => {
  const named = method === 'track' || method === 'page';
  const [name, payload] = named ? args : [args[0], args[1]];
  const now = new Date();

  const item = document.createElement('li');
  item.innerHTML = html`<details open>
    <summary><time datetime="${now.toISOString()}">${now.toTimeString().slice(0, 8)}</time> <i class="method method-${method}">${method}</i> <b>${name}</b><span class="fate" title="not delivered yet"></span></summary>
    <pre tabindex="0">${JSON.stringify(payload, null, 2)}</pre>
  </details>`;
  // The newest stays open until the next comes, unless the developer opened or closed it.
  if (newest && !newest.dataset.touched) newest.open = false;
  newest = item.firstElementChild;
  newest.firstElementChild.addEventListener('click', (event) => (event.currentTarget.parentElement.dataset.touched = ''));

  list.prepend(item);
  if (list.children.length > KEPT) list.lastElementChild.remove();
  waiting.set(calls, item);
  waiting.delete(calls - KEPT);
  calls += 1;
  document.getElementById('drawer-count').textContent = calls;
  showStatus();
});

// ---- What became of them, as the SDK reports it

const sum = { acknowledged: 0, stored: 0, duplicates: 0, retries: 0, dropped: 0 };
let unreachable = document.getElementById('firsthop-sdk')?.dataset.failed !== undefined;
let retrying = false;

window.firsthop.on('delivered', ({ firstSeq, count, stored, duplicates }) => {
  sum.acknowledged += count;
  sum.stored += stored;
  sum.duplicates += duplicates;
  retrying = false;
  // The SDK numbers a page's events from 0 in the order of the calls.
  for (let seq = Number(firstSeq); seq < Number(firstSeq) + count; seq += 1) settle(seq);
  showStatus();
});
window.firsthop.on('retry', () => {
  sum.retries += 1;
  retrying = true;
  showStatus();
});
window.firsthop.on('dropped', (report) => {
  sum.dropped += report?.count ?? 1;
  showStatus();
});
addEventListener('firsthop:unreachable', () => {
  unreachable = true;
  showStatus();
});

function settle(seq) {
  const mark = waiting.get(seq)?.querySelector('.fate');
  if (mark) {
    mark.title = 'acknowledged: on disk';
    mark.classList.add('delivered');
  }
  waiting.delete(seq);
}

function showStatus() {
  const [state, text] = describe();
  root.dataset.state = state;
  status.textContent = text;
}

function describe() {
  if (!writeKey) {
    return ['off', 'No write key is set, so nothing is sent; the shop works all the same. “make demo” prints an address with a key, or put yours into config.js.'];
  }
  if (unreachable) return ['failed', `The SDK could not be loaded from ${endpoint}. Is the edge running? The calls wait in the page.`];
  const open = calls - sum.acknowledged - sum.dropped;
  const parts = [`${sum.stored} stored`];
  if (sum.duplicates) parts.push(`${sum.duplicates} duplicates`);
  if (open > 0) parts.push(`${open} waiting`);
  if (sum.retries) parts.push(`${sum.retries} retries`);
  if (sum.dropped) parts.push(`${sum.dropped} given up`);
  return [retrying ? 'failed' : 'on', `${endpoint} · ${parts.join(' · ')}`];
}

showStatus();
