// Everything that `make bench` measured, in one table:
//
//     node benches/report.mjs target/bench
//
// Prints it, and writes report.md and report.json beside the measurements. A part that was not measured is left out, and said to be.
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';

const out = process.argv[2];
const EVENTS = 300;

const json = (name) => (existsSync(join(out, name)) ? JSON.parse(readFileSync(join(out, name), 'utf8')) : undefined);

/** criterion's estimates: nanoseconds of each benchmark by its id, the fastest sample and the median. */
function criterion() {
  const times = new Map();
  const root = join(out, 'criterion');
  for (const path of existsSync(root) ? readdirSync(root, { recursive: true }) : []) {
    if (!path.endsWith(join('new', 'benchmark.json'))) continue;
    const { full_id: id } = json(join('criterion', path));
    const { iters, times: totals } = json(join('criterion', path.replace('benchmark.json', 'sample.json')));
    const samples = iters.map((n, i) => totals[i] / n).sort((a, b) => a - b);
    times.set(id, { best: samples[0], median: samples[samples.length >> 1] });
  }
  return times;
}

const times = criterion();
const figures = json('figures.json');
const server = json('server.json');
const sdk = json('sdk.json');
const sizes = json('sizes.json');

/** Nanoseconds per event; undefined if it was not measured. */
const ns = (id, events = EVENTS) => (times.has(id) ? times.get(id).best / events : undefined);
const ratio = (a, b) => (a === undefined || b === undefined ? undefined : a / b);
const sum = (...values) => (values.includes(undefined) ? undefined : values.reduce((a, b) => a + b));

const fixed = (value, digits = 1) => (value === undefined ? '–' : value.toFixed(digits));
const whole = (value) => (value === undefined ? '–' : Math.round(value).toLocaleString('en'));
const per = (value, digits = 2) => (value === undefined ? '–' : `${value.toFixed(digits)}×`);

const sections = [];
const section = (title, note, heading, rows) => {
  if (rows.length > 0) sections.push({ title, note, heading, rows });
};

// ---- goals ----------------------------------------------------------------------------------------------------------

const goals = [];
/** `is` compared with a limit: at most (`<=`) or at least (`>=`). */
function goal(what, shown, is, relation, limit, unit) {
  const met = relation === '<=' ? is <= limit : is >= limit;
  // How far off, as a factor that is 1 at the goal.
  const off = relation === '<=' ? is / limit : limit / is;
  const verdict = is === undefined ? 'not measured' : met ? 'met' : `missed by ${((off - 1) * 100).toFixed(0)} %`;
  goals.push({ what, shown, unit, goal: `${relation === '<=' ? 'at most' : 'at least'} ${limit < 100 ? limit : whole(limit)}${unit}`, verdict, is, limit, met });
}

const hmac = ns('frame-300/HMAC-SHA256 alone');
const build = ns('frame-300/encode + sign (HMAC)');
const read = ns('frame-300/read (HMAC)');
const jsonWire = { build: ns('json-300/wire: encode + HMAC'), read: ns('json-300/wire: HMAC + decode') };
const jsonBody = { build: ns('json-300/body: encode + HMAC'), read: ns('json-300/body: HMAC + decode') };
const decode = ns('body-decode/firsthop');
const beside = (ours, theirs) => `${fixed(ours)} ns beside ${fixed(theirs)} ns an event`;

goal('frame of 300: encode + sign, beside HMAC-SHA256 alone', beside(build, hmac), ratio(build, hmac), '<=', 1.6, '×');
goal('frame of 300: encode + sign, beside serde_json + the same MAC', beside(build, jsonWire.build), ratio(jsonWire.build, build), '>=', 3, '× faster');
goal('frame of 300: CRC + verify + full decode, beside HMAC-SHA256 alone', beside(read, hmac), ratio(read, hmac), '<=', 1.6, '×');
goal('300 bodies: decode, beside serde_json into a borrowed struct', beside(decode, ns('body-decode/serde_json')), ratio(ns('body-decode/serde_json'), decode), '>=', 3, '× faster');
if (figures) {
  const [ours, theirs] = [figures.wire['firsthop, 300'], figures.wire['segment, 300']];
  goal('frame of 300: bytes per event, beside the JSON', `${ours} beside ${theirs} bytes`, ours / theirs, '<=', 0.5, ' of it');
}
const insert = ratio(ns('dedup-insert/HashSet<u128>'), ns('dedup-insert/DedupWindow'));
const million = (id) => ns(id, 1e6);
goal('dedup: insert, beside HashSet<u128>', `${fixed(million('dedup-insert/DedupWindow'))} ns beside ${fixed(million('dedup-insert/HashSet<u128>'))} ns`, insert, '>=', 2, '× faster');
if (figures) {
  const bytes = figures.dedup.bytesPerId.DedupWindow;
  goal('dedup: memory for an id at a million', `${bytes} bytes`, bytes, '<=', 32, ' bytes');
}
for (const { name, gzip, limit } of sizes?.rows ?? []) {
  if (limit) goal(`page SDK: ${name}, gzip`, `${whole(gzip)} bytes`, gzip, '<=', limit, ' bytes');
}
if (sdk) goal('page SDK: from an object to a signed frame, Node', `${fixed(sdk.microsPerEvent, 2)} µs an event`, sdk.microsPerEvent, '<=', 4, ' µs');

section(
  'Goals',
  'Ratios are taken within one run.',
  ['what', 'measured', 'ratio', 'goal', 'verdict'],
  goals.map(({ what, shown, is, unit, goal, verdict }) => [what, shown, is === undefined ? '–' : unit.includes('×') || unit === ' of it' ? fixed(is, 2) : '', goal, verdict]),
);

// ---- what was measured ----------------------------------------------------------------------------------------------

const CODECS = ['firsthop', 'postcard', 'bincode 2', 'wincode', 'rkyv (checked)', 'prost', 'rmp-serde (named)', 'serde_json'];
section(
  'Event bodies, the same fields in every codec',
  'Nanoseconds an event. Ours builds the properties with PropertiesWriter, names included, and carries header and CRC; decoding checks UTF-8 and visits every value.',
  ['codec', 'bytes', 'encode ns', 'decode ns', 'encode, of serde_json', 'decode, of serde_json'],
  CODECS.filter((codec) => times.has(`body-encode/${codec}`)).map((codec) => [
    codec,
    fixed(figures?.body[codec]),
    fixed(ns(`body-encode/${codec}`)),
    fixed(ns(`body-decode/${codec}`)),
    per(ratio(ns(`body-encode/${codec}`), ns('body-encode/serde_json'))),
    per(ratio(ns(`body-decode/${codec}`), ns('body-decode/serde_json'))),
  ]),
);

const bodySigned = ns('body-encode/firsthop');
section(
  'What goes over the wire: a page’s frame of 300 beside Segment’s batch of 300',
  'Nanoseconds an event; bytes an event. The JSON carries its context in every message, the frame once. “body only” leaves the context out of the JSON.',
  ['', 'bytes', 'encode', 'encode + MAC', 'decode', 'MAC + decode'],
  [
    ['firsthop, HMAC-SHA256', fixed(figures?.wire['firsthop, 300']), fixed(ns('frame-300/encode (unsigned)')), fixed(build), fixed(ns('frame-300/decode (unsigned)')), fixed(read)],
    ['firsthop, keyed BLAKE3', fixed(figures?.wire['firsthop, 300']), fixed(ns('frame-300/encode (unsigned)')), fixed(ns('frame-300/encode + sign (BLAKE3)')), fixed(ns('frame-300/decode (unsigned)')), fixed(ns('frame-300/read (BLAKE3)'))],
    ['Segment’s JSON, serde_json, HMAC-SHA256', fixed(figures?.wire['segment, 300']), fixed(ns('json-300/wire: encode')), fixed(jsonWire.build), fixed(ns('json-300/wire: decode')), fixed(jsonWire.read)],
    ['the same, body only', fixed(figures?.body.serde_json), fixed(ns('body-encode/serde_json')), fixed(jsonBody.build), fixed(ns('body-decode/serde_json')), fixed(jsonBody.read)],
  ].filter(() => bodySigned !== undefined || build !== undefined),
);

section(
  'The frame of 300 in parts',
  'Nanoseconds an event, and as a multiple of the bare MAC over the same bytes.',
  ['', 'HMAC-SHA256', '× bare', 'BLAKE3', '× bare'],
  times.has('frame-300/HMAC-SHA256 alone')
    ? [
        ['MAC alone, key schedule kept', 'HMAC-SHA256 alone', 'BLAKE3 alone'],
        ['encode + sign', 'encode + sign (HMAC)', 'encode + sign (BLAKE3)'],
        ['CRC + verify + full decode', 'read (HMAC)', 'read (BLAKE3)'],
        ['sign a frame that is built', 'sign (HMAC)'],
        ['verify', 'verify (HMAC)'],
        ['lengths + CRC', 'lengths + CRC'],
        ['CRC-32 alone', 'CRC alone'],
      ].map(([what, h, b]) => {
        const bare = ns('frame-300/BLAKE3 alone');
        return [what, fixed(ns(`frame-300/${h}`)), per(ratio(ns(`frame-300/${h}`), hmac)), ...(b ? [fixed(ns(`frame-300/${b}`)), per(ratio(ns(`frame-300/${b}`), bare))] : ['', ''])];
      })
    : [],
);

const small = (count) => [`frame of ${count}`, fixed(figures?.wire[`firsthop, ${count}`]), fixed(figures?.wire[`firsthop, ${count}, each on its own page`]), fixed(figures?.wire[`segment, ${count}`]), fixed(ns(`frame-${count}/encode + sign (HMAC)`, count)), fixed(ns(`frame-${count}/read (HMAC)`, count))];
section(
  'How the gain depends on the frame’s size',
  'Per event. “own page” is a frame in which every event states its own URL, title and referrer.',
  ['', 'bytes', 'bytes, own page', 'Segment’s JSON', 'encode + sign ns', 'read ns'],
  times.has('frame-1/read (HMAC)') ? [1, 20, EVENTS].map(small) : [],
);

const micros = (id) => (times.has(id) ? `${(times.get(id).best / 1000).toFixed(1)} µs` : '–');
section(
  'The hop’s own work on a frame of 300, and signatures for outside',
  '',
  ['', 'seal / sign', 'open / verify'],
  times.has('envelope/seal (HmacSha256)')
    ? [
        ['envelope, HMAC-SHA256', micros('envelope/seal (HmacSha256)'), micros('envelope/open (HmacSha256)')],
        ['envelope, keyed BLAKE3', micros('envelope/seal (Blake3)'), micros('envelope/open (Blake3)')],
        ['Ed25519 over the frame’s digest', micros('ed25519/sign'), micros('ed25519/verify')],
      ]
    : [],
);

section(
  'Deduplication of a million random 128-bit ids',
  'Nanoseconds an id. A false positive of a filter is an event that would be lost.',
  ['', 'insert', 'hit', 'miss', 'displace the oldest', 'bytes an id', 'false positives'],
  ['DedupWindow', 'HashSet<u128>', 'fastbloom 1e-4']
    .filter((name) => times.has(`dedup-insert/${name}`))
    .map((name) => [
      name,
      fixed(million(`dedup-insert/${name}`)),
      fixed(million(`dedup-hit/${name}`)),
      fixed(million(`dedup-miss/${name}`)),
      fixed(million(name === 'HashSet<u128>' ? 'dedup-displace/HashSet<u128> + VecDeque' : `dedup-displace/${name}`)),
      fixed(figures?.dedup.bytesPerId[name]),
      whole(figures?.dedup.falsePositivesPerMillion[name]),
    ]),
);

if (server) {
  section(
    'Server on loopback, durable before it is acknowledged; the load generator shares the processors',
    `${server.seconds} s each. Meanwhile the server fills its events table as well, and has caught up some time after the load. “in the journal” is what \`firsthop verify\` counted afterwards.`,
    ['', 'events/s', 'requests/s', 'p50 ms', 'p99 ms', 'max ms', 'RSS MiB', 'peak MiB', 'CPU µs/event', 'table caught up', 'of nginx', 'in the journal'],
    server.scenarios.map((s) => [
      s.name,
      whole(s.eventsPerSecond),
      whole(s.requestsPerSecond),
      fixed(s.p50Ms),
      fixed(s.p99Ms),
      fixed(s.maxMs),
      whole(s.residentMiB),
      whole(s.peakMiB),
      fixed(s.cpuMicrosPerEvent, 2),
      s.caughtUpSeconds === undefined ? 'not within 2 min' : `${fixed(s.caughtUpSeconds)} s later`,
      s.nginx ? `${((s.requestsPerSecond / Math.max(s.nginx.wrk, s.nginx.own)) * 100).toFixed(0)} %` : '',
      s.balanced ? 'all acknowledged' : 'NOT WHAT WAS ACKNOWLEDGED',
    ]),
  );
  section(
    'nginx `return 204` for the same body, two workers',
    'Requests per second; the share above is of the larger one.',
    ['', 'bytes', 'wrk -t2 -c64', 'our generator'],
    server.scenarios.filter((s) => s.nginx).map((s) => [s.name, whole(s.bytesPerRequest), whole(s.nginx.wrk), whole(s.nginx.own)]),
  );
}

if (sdk?.rows) {
  section(
    'Page SDK in Node',
    'Microseconds an event; the three in turn, round by round.',
    ['', 'median', 'best'],
    sdk.rows.map(({ name, microsPerEvent, best }) => [name, fixed(microsPerEvent, 2), fixed(best, 2)]),
  );
}

section(
  'Sizes',
  'Bytes.',
  ['', 'raw', 'gzip', 'brotli'],
  (sizes?.rows ?? []).map(({ name, raw, gzip, brotli }) => [name, whole(raw), whole(gzip), whole(brotli)]),
);

// ---- output ---------------------------------------------------------------------------------------------------------

/** How much slower the median was than the fastest sample: large on a machine that does something else as well. */
const unrest = [...times.values()].map(({ best, median }) => median / best).sort((a, b) => a - b);
const quiet = unrest.length === 0 ? undefined : unrest[unrest.length >> 1];
const machine = `${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${process.platform} ${process.arch}`;
const notes = [machine];
if (quiet !== undefined) notes.push(`Times are each benchmark’s fastest sample; the median sample was ${((quiet - 1) * 100).toFixed(0)} % slower.`);
if (quiet > 1.15) notes.push('That is much: something else ran at the same time. Believe the ratios more than the times, and run it again on a quiet machine.');

if (server?.loadBefore > 0.5) {
  notes.push(`Before the server was measured, the machine’s load average was ${server.loadBefore.toFixed(1)}: its rates are lower than on a quiet machine.`);
}

const missing = [
  [times.size === 0, 'criterion benchmarks'],
  [!figures, 'bytes and memory'],
  [!sdk, 'page SDK'],
  [!sizes, 'sizes'],
  [!server, 'server'],
].filter(([is]) => is).map(([, what]) => what);
if (missing.length > 0) notes.push(`Not measured: ${missing.join(', ')}.`);

const width = (text) => [...text].length;
const pad = (text, to, right) => (right ? ' '.repeat(to - width(text)) + text : text + ' '.repeat(to - width(text)));
const isNumber = (cell) => /^[–\d.,]*( ?[×%]| µs)?$/.test(cell);

function table({ title, note, heading, rows }) {
  const widths = heading.map((cell, i) => Math.max(width(cell), ...rows.map((row) => width(row[i]))));
  const right = heading.map((_, i) => i > 0 && rows.every((row) => isNumber(row[i])));
  const line = (cells) => cells.map((cell, i) => pad(cell, widths[i], right[i])).join('  ').trimEnd();
  const rule = widths.map((w) => '─'.repeat(w)).join('──');
  return [title, ...(note ? [`  ${note}`] : []), '', line(heading), rule, ...rows.map(line), ''].join('\n');
}

function markdown({ title, note, heading, rows }) {
  const line = (cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll('<', '&lt;')).join(' | ')} |`;
  const right = heading.map((_, i) => i > 0 && rows.every((row) => isNumber(row[i])));
  return [`## ${title}`, '', ...(note ? [note, ''] : []), line(heading), `|${right.map((r) => (r ? '---:|' : '---|')).join('')}`, ...rows.map(line), ''].join('\n');
}

console.log(`\n${sections.map(table).join('\n')}\n${notes.join('\n')}`);
writeFileSync(join(out, 'report.md'), `# Benchmarks\n\n${notes.join('\n\n')}\n\n${sections.map(markdown).join('\n')}`);
writeFileSync(join(out, 'report.json'), JSON.stringify({ machine, goals, times: Object.fromEntries(times), figures, server, sdk, sizes }, null, 2));
console.log(`\nAlso in ${join(out, 'report.md')} and report.json.`);
