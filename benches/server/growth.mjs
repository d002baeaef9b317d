// What a large journal costs: throughput, memory and start at growing sizes.
//
//     node benches/server/growth.mjs FIRSTHOP LOAD FOLDER GIGABYTES >growth.json
//
// Each known source has one frame of two kilobytes. To send so many would take an hour, so they are written into the journal's tables
// as a server would have left them; what is measured then goes through the server. FOLDER needs a fifth more than GIGABYTES, and is
// emptied at the end. growth.svg in it shows the result.
import { copyFileSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { generate, makeFolder, say, serve, stop, usage, whole } from './kit.mjs';
import { plot } from './plot.mjs';

const [firsthop, load, folder] = process.argv.slice(2, 5).map((path) => resolve(path));
const gigabytes = Number(process.argv[5]);
const data = join(folder, 'data');
const SECONDS = Number(process.env.BENCH_SECONDS ?? 5);
/** Visitors who come back while it is measured. */
const RETURNING = 20_000;
/** What one takes in the file, with its row and its place in a page. */
const FRAME_BYTES = 2000;
const BODY_BYTES = 1800;
/** Events in each of those frames. */
const EVENTS = 11;
const SIZES = [0, 0.25, 0.5, 1];

mkdirSync(folder, { recursive: true });
const key = await makeFolder(firsthop, data);
{
  // Makes the files.
  const { server } = await serve(firsthop, data);
  await stop(server);
}
const tenant = join(data, 'tenants', readdirSync(join(data, 'tenants'))[0]);
const [journalFile, tableFile, emptyTable] = [join(tenant, 'journal.db'), join(tenant, 'events.db'), join(folder, 'empty.db')];
copyFileSync(tableFile, emptyTable);

/** The id of the how-manieth source: a time in front, as in all that pages make, and bits without order behind it. */
const sourceId = (n) => `unhex(printf('%012x7%03x%016x', 1750000000000 + ${n} * 1000, ${n} % 4096, ${n} * 2654435761 % 4294967296))`;

/** Adds frames until there are so many sources, in the order in which they came: sources come back in no order. */
function grow(from, to) {
  const db = new DatabaseSync(journalFile);
  db.exec('PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; PRAGMA wal_autocheckpoint = 20000');
  const last = db.prepare('SELECT COALESCE(MAX(id), 0) AS id FROM frames').get().id;
  const numbers = (a, b) => `WITH RECURSIVE n(i) AS (SELECT ${a} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ${b})`;
  for (let at = from; at < to; at += 200_000) {
    const end = Math.min(at + 200_000, to);
    db.exec(`BEGIN;
      ${numbers(at, end)} INSERT INTO frames (id, received_ms, source, batch_seq, first_seq, count, ids, region, sum, body)
        SELECT ${last - from} + i + 1, 1750000000000 + i * 1000, ${sourceId('i')}, 0, 0, ${EVENTS}, 0, '--', 1, randomblob(${BODY_BYTES}) FROM n;
      ${numbers(at, end)} INSERT INTO seen (source, first, last, frame)
        SELECT ${sourceId('i')} AS source, 0, ${EVENTS - 1}, ${last - from} + i + 1 FROM n ORDER BY source;
      UPDATE meta SET value = (SELECT MAX(id) FROM frames) WHERE key = 'settled'; COMMIT`);
  }
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  const { id, sum } = db.prepare('SELECT id, sum FROM frames ORDER BY id DESC LIMIT 1').get() ?? { id: 0, sum: 0 };
  const which = db.prepare("SELECT value FROM meta WHERE key = 'journal'");
  which.setReadBigInts(true);
  const { value: journal } = which.get();
  db.close();
  // The table begins where the journal ends: what is measured is not its catching up.
  for (const suffix of ['', '-wal', '-shm']) rmSync(tableFile + suffix, { force: true });
  copyFileSync(emptyTable, tableFile);
  const table = new DatabaseSync(tableFile);
  table.prepare('UPDATE firsthop_cursor SET frame = ?, journal = ?, sum = ?').run(id, journal, sum);
  table.close();
}

/** Sources that have come back. */
const cameBack = new Set();

/** Ids of sources that are there, drawn evenly over all of them; none twice, since what they send then would not be new. */
function draw(sources, file) {
  const db = new DatabaseSync(':memory:');
  const id = db.prepare(`SELECT ${sourceId('?1')} AS id`);
  const drawn = new Set();
  while (drawn.size < RETURNING) {
    const one = Math.floor(Math.random() * sources);
    if (!cameBack.has(one)) drawn.add(one);
  }
  drawn.forEach((one) => cameBack.add(one));
  writeFileSync(file, Buffer.concat([...drawn].map((n) => id.get(n).id)));
  db.close();
}

/** Events that the journal counts as stored. */
function stored() {
  const db = new DatabaseSync(journalFile, { readOnly: true });
  const { events } = db.prepare("SELECT COALESCE(SUM(events), 0) AS events FROM counters WHERE outcome = 'stored'").get();
  db.close();
  return events;
}

async function measure(sources) {
  const before = stored();
  const { server, address, readyMs } = await serve(firsthop, data);
  const idsFile = join(folder, 'sources.ids');
  if (sources > 0) draw(sources, idsFile);
  const single = { address, 'write-key': key, events: 1, connections: 64, seconds: SECONDS };
  const fresh = await generate(load, 'frames', { ...single, sources: RETURNING });
  const returning = await generate(load, 'frames', { ...single, sources: RETURNING, ...(sources > 0 && { 'source-ids': idsFile }) });
  const frames = await generate(load, 'frames', { ...single, events: 300, connections: 32, seconds: 2 });
  const { peakMiB } = usage(server.pid);
  await stop(server);
  const acknowledged = [fresh, returning, frames].reduce((sum, result) => sum + result.stored + result.eventsBefore, 0);
  if (stored() - before !== acknowledged) throw new Error(`${stored() - before} events in the journal, ${acknowledged} acknowledged`);
  const bytes = statSync(journalFile).size;
  return { gigabytes: bytes / 1e9, sources, fresh, returning, frames, peakMiB, readyMs };
}

const points = [];
let sources = 0;
try {
  for (const size of SIZES) {
    const wanted = Math.round((size * gigabytes * 1e9) / FRAME_BYTES);
    say(`${whole(wanted)} sources …`);
    grow(sources, wanted);
    sources = wanted;
    const point = await measure(sources);
    points.push(point);
    say(
      `  ${point.gigabytes.toFixed(1)} GB: new ${whole(point.fresh.requestsPerSecond)}, back ${whole(point.returning.requestsPerSecond)} requests/s, ` +
        `frames ${whole(point.frames.eventsPerSecond)} events/s, ${point.peakMiB.toFixed(0)} MiB, ready in ${point.readyMs.toFixed(0)} ms`,
    );
  }
} finally {
  rmSync(data, { recursive: true, force: true });
}
writeFileSync(join(folder, 'growth.svg'), plot(points));
console.log(JSON.stringify({ points }, null, 2));
