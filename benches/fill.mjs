// Puts measured tables into the document that explains them:
//
//     node benches/fill.mjs target/bench/report.md docs/performance.md
//
// A section of the report takes the place of the one of the same title; a new one comes behind its neighbour in the report. Nothing else is
// touched: what the figures mean, and which run they are of, is for a person to say.
import { readFileSync, writeFileSync } from 'node:fs';

const [report, document] = process.argv.slice(2);
const sections = readFileSync(report, 'utf8').split(/^## /m).slice(1);
let text = readFileSync(document, 'utf8');

let end = text.indexOf('\n## What is not claimed');
if (end < 0) throw new Error(`${document}: where do the figures end?`);
for (const section of sections) {
  const title = section.slice(0, section.indexOf('\n'));
  const heading = `### ${title}\n`;
  const filled = `### ${section.trimEnd()}\n`;
  const at = text.indexOf(heading);
  if (at < 0) {
    text = `${text.slice(0, end)}\n${filled}${text.slice(end)}`;
    end += 1 + filled.length;
    console.log(`new: ${title}`);
  } else {
    const next = text.slice(at + heading.length).search(/^##/m);
    const after = at + heading.length + next;
    text = `${text.slice(0, at)}${filled}\n${text.slice(after)}`;
    // Right behind its last line, before the empty one.
    end = at + filled.length;
    console.log(`filled: ${title}`);
  }
}
writeFileSync(document, text);
