// The growth of a journal as a picture: two panels, the journal's size from left to right.

const WIDTH = 360;
const HEIGHT = 220;
const COLOURS = ['#0b6e4f', '#c8553d', '#3d5a80'];

/** One panel: lines over gigabytes, with a goal as a dashed line, and its name where the lines should not come. */
function panel({ title, unit, lines, goal, top, left }) {
  const xs = lines[0].values.map(([x]) => x);
  const maxX = Math.max(...xs);
  const x = (value) => left + 50 + (value / maxX) * (WIDTH - 70);
  const y = (value) => 40 + (1 - value / top) * (HEIGHT - 40);
  const text = (at, up, anchor, words, more = '') => `<text x="${at}" y="${up}" text-anchor="${anchor}" ${more}>${words}</text>`;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => part * top);
  return [
    text(left + 50, 20, 'start', title, 'font-weight="600"'),
    ...ticks.map((tick) => `<path d="M${x(0)} ${y(tick)}H${x(maxX)}" stroke="#ddd"/>${text(x(0) - 8, y(tick) + 4, 'end', Math.round(tick) + unit)}`),
    ...xs.map((value) => text(x(value), HEIGHT + 18, 'middle', value.toFixed(value < 10 ? 1 : 0))),
    text((x(0) + x(maxX)) / 2, HEIGHT + 36, 'middle', 'journal, GB'),
    ...(goal ? [`<path d="M${x(0)} ${y(goal.value)}H${x(maxX)}" stroke="#888" stroke-dasharray="5 4"/>${text(x(maxX), y(goal.value) + (goal.isLeast ? 14 : -5), 'end', goal.label, 'fill="#666"')}`] : []),
    ...lines.map(({ name, values }, i) => {
      const path = values.map(([a, b], j) => `${j ? 'L' : 'M'}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join('');
      const dots = values.map(([a, b]) => `<circle cx="${x(a).toFixed(1)}" cy="${y(b).toFixed(1)}" r="3" fill="${COLOURS[i]}"/>`).join('');
      const legend = HEIGHT + 58 + i * 18;
      return `<path d="${path}" fill="none" stroke="${COLOURS[i]}" stroke-width="2"/>${dots}<path d="M${left + 50} ${legend - 4}h18" stroke="${COLOURS[i]}" stroke-width="2"/>${text(left + 74, legend, 'start', name)}`;
    }),
  ].join('\n');
}

export function plot(points) {
  const share = (name, figure) => points.map((point) => [point.gigabytes, (point[name][figure] / points[0][name][figure]) * 100]);
  const lines = [
    { name: 'one event per request, new visitors', values: share('fresh', 'requestsPerSecond') },
    { name: 'one event per request, visitors who come back', values: share('returning', 'requestsPerSecond') },
    { name: 'frames of 300', values: share('frames', 'eventsPerSecond') },
  ];
  const most = Math.max(...lines.flatMap(({ values }) => values.map(([, part]) => part)));
  const peak = Math.max(...points.map((point) => point.peakMiB));
  const throughput = panel({
    title: 'Throughput, of that with an empty journal',
    unit: ' %',
    top: Math.max(120, 40 * Math.ceil(most / 40)),
    left: 0,
    goal: { value: 80, label: 'goal: at least 80 %', isLeast: true },
    lines,
  });
  const memory = panel({
    title: 'Memory at its peak, MiB; ready after, ms',
    unit: '',
    top: Math.max(400, 100 * Math.ceil(peak / 100)),
    left: WIDTH + 20,
    goal: { value: 400, label: 'goal for memory: at most 400 MiB' },
    lines: [
      { name: 'memory, MiB', values: points.map((point) => [point.gigabytes, point.peakMiB]) },
      { name: 'ready after, ms (goal: at most 2,000)', values: points.map((point) => [point.gigabytes, point.readyMs]) },
    ],
  });
  const [width, height] = [2 * WIDTH + 40, HEIGHT + 110];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
${throughput}
${memory}
</svg>
`;
}
