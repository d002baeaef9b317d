// Everything that `make bench` measured, in one table:
//
//     node benches/report.mjs target/bench [PART …]
//
// Prints it, and writes report.md and report.json beside the measurements. A part that was not measured is left out, and said to be. With
// parts named (server, growth), it is about those alone.
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';

const out = process.argv[2];
const EVENTS = 300;

const parts = process.argv.slice(3);
const wanted = (part) => parts.length === 0 || parts.includes(part);

const json = (name) => (existsSync(join(out, name)) ? JSON.parse(readFileSync(join(out, name), 'utf8')) : undefined);
const part = (name) => (wanted(name) ? json(`${name}.json`) : undefined);

const older = [];
/** A part's measurement, if it has all that is shown of it: one of an earlier checkout may not. */
function ofToday(name, measured, isWhole) {
  if (measured === undefined || isWhole(measured)) return measured;
  older.push(`${name}.json is of an older form: run the ${name} part again (tools/bench --only ${name}).`);
  return undefined;
}

/** The parts that criterion measures, each with the names of its groups. */
const CRITERION = { codec: /^body-/, frame: /^(frame|json|envelope|ed25519|sealed)/, dedup: /^dedup-/ };

/** criterion's estimates: nanoseconds of each benchmark by its id, the fastest sample and the median. */
function criterion() {
  const times = new Map();
  const groups = Object.entries(CRITERION).filter(([name]) => wanted(name)).map(([, group]) => group);
  if (groups.length === 0) return times;
  const root = join(out, 'criterion');
  for (const path of existsSync(root) ? readdirSync(root, { recursive: true }) : []) {
    if (!path.endsWith(join('new', 'benchmark.json'))) continue;
    const { full_id: id } = json(join('criterion', path));
    if (!groups.some((group) => group.test(id))) continue;
    const { iters, times: totals } = json(join('criterion', path.replace('benchmark.json', 'sample.json')));
    const samples = iters.map((n, i) => totals[i] / n).sort((a, b) => a - b);
    times.set(id, { best: samples[0], median: samples[samples.length >> 1] });
  }
  return times;
}

const times = criterion();
const figures = part('figures');
const server = ofToday('server', part('server'), ({ builds }) => builds);
const growth = part('growth');
const edge = ofToday('edge', part('edge'), ({ scenarios, forwarding }) =>
  scenarios.every(({ throughputQuartiles, cpuQuartiles }) => throughputQuartiles && cpuQuartiles) && forwarding?.every(({ shareQuartiles }) => shareQuartiles));
const isolation = part('isolation');
const sdk = part('sdk');
const sizes = part('sizes');

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
  if (is === undefined && parts.length > 0) return;
  // How far off, as a factor that is 1 at the goal.
  const off = relation === '<=' ? is / limit : limit / is;
  const verdict = is === undefined ? 'not measured' : met ? 'met' : is === Infinity ? 'missed' : `missed by ${((off - 1) * 100).toFixed(0)} %`;
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
if (edge) {
  for (const [events, limit] of [[1, 0.95], [50, 1.3], [300, 2.5]]) {
    const { firsthop, plain, throughput } = edge.scenarios.find((scenario) => scenario.events === events);
    const rate = ({ requestsPerSecond }) => whole(requestsPerSecond * events);
    goal(`edge, ${events === 1 ? 'one event' : `${events} events`} per request: beside a plain JavaScript Worker`, `${rate(firsthop)} beside ${rate(plain)} events/s`, throughput, '>=', limit, '×');
  }
  for (const { events, share, process, forward, relay } of edge.forwarding) {
    const above = ({ cpuMicros }) => fixed(cpuMicros - relay.cpuMicros);
    goal(`edge, sealed frame of ${events}: passed on unread, of processed; processor time above a handler that only passes on`, `${above(forward)} beside ${above(process)} µs`, share * 100, '<=', 10, ' %');
  }
  const { firsthopMs, emptyMs } = edge.startUp;
  goal('edge: first answer after a start, later than that of an empty Worker', `${fixed(firsthopMs)} beside ${fixed(emptyMs)} ms`, firsthopMs - emptyMs, '<=', 30, ' ms');
}
for (const { name, gzip, limit } of sizes?.rows ?? []) {
  if (limit) goal(`page SDK: ${name}, gzip`, `${whole(gzip)} bytes`, gzip, '<=', limit, ' bytes');
}
if (sdk) goal('page SDK: from an object to a signed frame, Node', `${fixed(sdk.microsPerEvent, 2)} µs an event`, sdk.microsPerEvent, '<=', 4, ' µs');
if (server) {
  const of = (name) => server.scenarios.find((scenario) => scenario.name === name);
  const frames = of('frames of 300');
  goal('server, frames of 300, 32 connections: events a second, durable', whole(frames.eventsPerSecond), frames.eventsPerSecond, '>=', 1_500_000, '');
  goal('server, frames of 300: p99 of the answer', `${fixed(frames.p99Ms)} ms`, frames.p99Ms, '<=', 10, ' ms');
  goal('server, frames of 300: memory at its peak', `${fixed(frames.peakMiB)} MiB`, frames.peakMiB, '<=', 150, ' MiB');
  for (const [name, limit] of [['one event per request, native', 40], ['one event per request, native, 512 connections', 50]]) {
    const found = of(name);
    const shown = found.nginx && `${whole(found.requestsPerSecond)} beside ${whole(Math.max(found.nginx.own, found.nginx.wrk))} requests/s`;
    goal(`server, ${name}: of nginx's return 204`, shown ?? '–', found.nginx && found.nginx.share * 100, '>=', limit, ' %');
  }
  goal('server: rows a second into the events table while events come in', `${whole(server.drain.rowsPerSecond)} beside ${whole(server.drain.ingestPerSecond)} events/s`, server.drain.rowsPerSecond, '>=', 300_000, '');
  // Of one and the same binary: the static one. Another misses the goal whatever its size.
  const idle = server.builds.find(({ isStatic }) => isStatic) ?? server.idle;
  goal('server, idle: memory', `${fixed(idle.residentMiB)} MiB`, idle.residentMiB, '<=', 20, ' MiB');
  goal('server, idle: ready after', `${fixed(idle.readyMs, 0)} ms`, idle.readyMs, '<=', 50, ' ms');
  const megabytes = idle.binaryBytes / 1e6;
  goal('server: one static binary', `${fixed(megabytes)} MB${idle.isStatic ? '' : ', which needs the C library'}`, idle.isStatic ? megabytes : Infinity, '<=', 20, ' MB');
  const unequal = [...server.scenarios, server.drain, ...server.builds].filter(({ balanced }) => !balanced).length;
  goal('server: parts after which the journal has not exactly what was acknowledged', `${unequal}`, unequal, '<=', 0, '');
}
if (growth) {
  const [first, last] = [growth.points[0], growth.points.at(-1)];
  const size = `${fixed(last.gigabytes)} GB, ${fixed(last.sources / 1e6)} M sources`;
  for (const [name, what] of [['fresh', 'new visitors'], ['returning', 'visitors who come back']]) {
    const kept = (last[name].requestsPerSecond / first[name].requestsPerSecond) * 100;
    goal(`server, ${size}, ${what}: of the throughput with an empty journal`, `${whole(last[name].requestsPerSecond)} beside ${whole(first[name].requestsPerSecond)} requests/s`, kept, '>=', 80, ' %');
  }
  const peak = Math.max(...growth.points.map((point) => point.peakMiB));
  goal(`server, ${size}: memory at its peak`, `${fixed(peak)} MiB`, peak, '<=', 400, ' MiB');
  goal(`server, ${size}: ready after`, `${fixed(last.readyMs, 0)} ms`, last.readyMs, '<=', 2000, ' ms');
}

if (isolation) {
  const { alone, besideNoise, p99Moved, p99MovedMs, fold, quietRefused } = isolation;
  const shown = `${fixed(besideNoise.p99Ms, 2)} beside ${fixed(alone.p99Ms, 2)} ms, within a round ${fixed(p99MovedMs, 2)} ms more`;
  // Half a millisecond is the clock's.
  const judged = p99Moved > 1.2 && p99MovedMs <= 0.5 ? [p99MovedMs, '<=', 0.5, ' ms'] : [p99Moved, '<=', 1.2, '×'];
  goal(`server, a tenant that sends ${whole(fold)} times its limit: p99 of another`, shown, ...judged);
  goal('server, the same: requests of the other that were refused', `${quietRefused}`, quietRefused, '<=', 0, '');
}

const kindOf = (what) => what.match(/^(server|edge)\b/)?.[1];
for (const [title, kind] of [['Goals', undefined], ['Goals of the server', 'server'], ['Goals of the edge', 'edge']]) {
  section(
    title,
    'Ratios are taken within one run.',
    ['what', 'measured', 'ratio', 'goal', 'verdict'],
    goals
      .filter(({ what }) => kindOf(what) === kind)
      .map(({ what, shown, is, unit, goal, verdict }) => [what, shown, is === undefined ? '–' : unit === ' %' ? `${fixed(is, 0)} %` : unit.includes('×') || unit === ' of it' ? fixed(is, 2) : '', goal, verdict]),
  );
}

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
  'What sealing costs',
  'Microseconds a frame. Who reads a sealed frame verifies it and opens it, and then reads as before.',
  ['', 'encode + sign', 'encode + seal + sign', 'open', 'verify + read, in clear'],
  times.has('sealed/open 1')
    ? [1, 50, EVENTS].map((count) => [`frame of ${count}`, ...['encode + sign', 'encode + seal + sign', 'open', 'verify + read'].map((what) => micros(`sealed/${what} ${count}`))])
    : [],
);
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
    `${server.seconds} s each. Meanwhile the server fills its events table as well: “rows/s” of it, and by how much it was behind at the end. “in the journal” is what \`firsthop verify\` counted afterwards.`,
    ['', 'events/s', 'requests/s', 'p50 ms', 'p99 ms', 'max ms', 'RSS MiB', 'peak MiB', 'CPU µs/event', 'table rows/s', 'behind s', 'of nginx', 'in the journal'],
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
      whole(s.tableRowsPerSecond),
      fixed(s.tableLagSeconds),
      s.nginx ? `${(s.nginx.share * 100).toFixed(0)} %` : '',
      s.balanced ? 'all acknowledged' : 'NOT WHAT WAS ACKNOWLEDGED',
    ]),
  );
  const within = ({ buckets }, seconds) => `${((buckets.find((bucket) => Number(bucket.seconds) === seconds)?.share ?? 0) * 100).toFixed(1)} %`;
  section(
    'Commits of the journal, sync included',
    'How many, how many events in each, and how many of them took at most so long.',
    ['', 'commits/s', 'events each', 'mean ms', '≤ 0.5 ms', '≤ 1 ms', '≤ 2.5 ms', '≤ 5 ms', '≤ 10 ms', '≤ 25 ms'],
    server.scenarios.map(({ name, commits, seconds, acknowledgedEvents }) => [
      name,
      whole(commits.count / seconds),
      fixed(acknowledgedEvents / commits.count),
      fixed(commits.meanMs, 2),
      ...[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025].map((bound) => within(commits, bound)),
    ]),
  );
  section(
    'nginx `return 204` for the same body, two workers',
    'Requests per second, in turn with ours; of each the middle round, and all of them. The share above is of the larger.',
    ['', 'bytes', 'wrk -t2', 'our generator', 'wrk, each round', 'our generator, each round', 'ours, each round'],
    server.scenarios
      .filter((s) => s.nginx)
      .map((s) => {
        const each = (of) => s.nginx.rounds.map((round) => whole(round[of])).join(' · ');
        return [s.name, whole(s.bytesPerRequest), whole(s.nginx.wrk), whole(s.nginx.own), each('wrk'), each('own'), each('ours')];
      }),
  );
  const { drain } = server;
  section(
    'The events table catches up while more comes in',
    'Behind: frames that were committed and are not in the table yet, every half second, the first and the last of them.',
    ['rows/s', 'events/s that came in', 'their p99 ms', 'behind at first', 'behind at last', 'seconds behind, at most', 'in the journal'],
    [[whole(drain.rowsPerSecond), whole(drain.ingestPerSecond), fixed(drain.ingestP99Ms), whole(drain.lagFrames[0]), whole(drain.lagFrames.at(-1)), fixed(Math.max(...drain.lagSeconds)), drain.balanced ? 'all acknowledged' : 'NOT WHAT WAS ACKNOWLEDGED']],
  );
  section(
    'The builds side by side: one event per request, 64 connections',
    'One after the other; all else above is of the first. That of server-static has musl, whose functions for memory and texts are plain loops.',
    ['make', 'events/s', 'CPU µs/event', 'MB', 'ready ms', 'idle MiB'],
    server.builds.map((build) => [
      build.name,
      whole(build.eventsPerSecond),
      fixed(build.cpuMicrosPerEvent, 2),
      fixed(build.binaryBytes / 1e6),
      fixed(build.readyMs, 0),
      fixed(build.residentMiB),
    ]),
  );
}

if (isolation) {
  section(
    'A tenant beside others, 200 requests a second, one event each',
    `${isolation.seconds} s, ${isolation.rounds} times in turn; the round in the middle, and the p99 of the best and the worst. The limited one offers ${whole(isolation.fold)} times what its limit lets through; the one without limits has ${whole(isolation.besideUnlimited.requestsPerSecond)} requests/s stored, and what it does to a second server of the quiet one's own is the machine's part.`,
    ['', 'p50 ms', 'p99 ms', 'rounds’ p99', 'requests'],
    [['alone', isolation.alone], ['beside a limited one', isolation.besideNoise], ['beside one without limits', isolation.besideUnlimited], ['in a server of its own, beside that', isolation.apart]].filter(([, f]) => f).map(([name, f]) => [name, fixed(f.p50Ms, 2), fixed(f.p99Ms, 2), `${fixed(Math.min(...f.p99sMs), 2)} to ${fixed(Math.max(...f.p99sMs), 2)}`, whole(f.requests)]),
  );
}

if (growth) {
  section(
    'As the journal grows',
    'One event per request, 64 connections. New: from sources that nobody knew. Back: from sources that were in the journal before.',
    ['journal GB', 'sources', 'new, requests/s', 'p99 ms', 'back, requests/s', 'p99 ms', 'frames of 300, events/s', 'peak MiB', 'ready ms'],
    growth.points.map((p) => [fixed(p.gigabytes), whole(p.sources), whole(p.fresh.requestsPerSecond), fixed(p.fresh.p99Ms), whole(p.returning.requestsPerSecond), fixed(p.returning.p99Ms), whole(p.frames.eventsPerSecond), whole(p.peakMiB), whole(p.readyMs)]),
  );
}

if (edge) {
  section(
    'Edge on workerd, beside a plain JavaScript Worker that does the same, and an empty one',
    `32 connections, rounds of ${edge.seconds} s in turn (${edge.scenarios.map(({ events, rounds }) => `${rounds} with ${events === 1 ? 'one event' : events}`).join(', ')}), the middle one of each; generator and server behind share the processors. CPU is workerd’s, a request. Ratios are of one round; behind the middle one, between which two half of them lie.`,
    ['', 'events', 'bytes', 'requests/s', 'events/s', 'p50 ms', 'p99 ms', 'CPU µs', 'peak MiB', 'events/s, of plain', 'CPU, of plain'],
    [
      ...edge.scenarios.flatMap(({ events, firsthop, plain, throughput, throughputQuartiles, cpu, cpuQuartiles }) => [
        ['firsthop', firsthop, `${per(throughput)} (${throughputQuartiles.map((ratio) => per(ratio)).join(' to ')})`, `${per(1 / cpu)} (${cpuQuartiles.map((ratio) => per(ratio)).join(' to ')})`],
        ['plain JavaScript', plain, '', ''],
      ].map(([name, r, ...ratios]) => [name, `${events}`, whole(r.bytesPerRequest), whole(r.requestsPerSecond), whole(r.requestsPerSecond * events), fixed(r.p50Ms), fixed(r.p99Ms), whole(r.cpuMicros), whole(r.peakMiB), ...ratios])),
      ['empty', '', whole(edge.empty.bytesPerRequest), whole(edge.empty.requestsPerSecond), '', fixed(edge.empty.p50Ms), fixed(edge.empty.p99Ms), whole(edge.empty.cpuMicros), whole(edge.empty.peakMiB), '', ''],
    ],
  );
}

if (edge) {
  const names = { process: 'opened and processed', forward: 'passed on unread', relay: 'a handler that only passes on' };
  section(
    'Sealed frames at the edge: passed on unread, and processed',
    `The same generator and upstream, ${edge.forwarding.map(({ rounds }) => rounds).join(', ')} rounds in turn. Above: by how much workerd’s processor time is more than that of a handler that only passes on. Its share is of one round: the middle one, and between which two half of them lie.`,
    ['', 'events', 'bytes', 'requests/s', 'p50 ms', 'p99 ms', 'CPU µs', 'above', 'of processing'],
    edge.forwarding.flatMap(({ events, share, shareQuartiles, ...rows }) =>
      Object.entries(names).map(([what, name]) => {
        const r = rows[what];
        const above = r.cpuMicros - rows.relay.cpuMicros;
        return [name, `${events}`, whole(r.bytesPerRequest), whole(r.requestsPerSecond), fixed(r.p50Ms), fixed(r.p99Ms), whole(r.cpuMicros), what === 'relay' ? '' : whole(above), what === 'forward' ? `${fixed(share * 100)} % (${shareQuartiles.map((part) => fixed(part * 100)).join(' to ')})` : ''];
      }),
    ),
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

for (const [what, { loadBefore = 0 } = {}] of [['server', server], ['edge', edge]]) {
  if (loadBefore > 0.5) notes.push(`Before the ${what} was measured, the machine’s load average was ${loadBefore.toFixed(1)}: its rates are lower than on a quiet machine.`);
}

const missing = [
  [times.size === 0, 'criterion benchmarks'],
  [!figures, 'bytes and memory'],
  [!sdk, 'page SDK'],
  [!sizes, 'sizes'],
  [!server, 'server'],
  [!edge, 'edge'],
].filter(([is]) => is && parts.length === 0).map(([, what]) => what);
if (missing.length > 0) notes.push(`Not measured: ${missing.join(', ')}.`);
notes.push(...older);

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
writeFileSync(join(out, 'report.json'), JSON.stringify({ machine, goals, times: Object.fromEntries(times), figures, server, isolation, growth, sdk, sizes }, null, 2));
console.log(`\nAlso in ${join(out, 'report.md')} and report.json.`);
