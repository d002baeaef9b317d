// Deflate (RFC 1951) that takes its time: the division into literals and matches is the shortest path under the very codes that it leads to,
// found by trying again with the codes of the last try (as zopfli does). Some per cent less than zlib's best: worth having where the result
// stands in every page, and bearable for files as small as the page's module.

const ROUNDS = 20;

// Symbols of lengths and distances: the first value of each, and how many bits say which of those that share it.
const LENGTHS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_BITS = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCES = Array.from({ length: 30 }, (_, i) => (i < 4 ? i + 1 : 1 + ((2 + (i & 1)) << ((i >> 1) - 1))));
const DISTANCE_BITS = DISTANCES.map((_, i) => Math.max(0, (i >> 1) - 1));
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const END = 256;

const symbolOf = (firsts, value) => firsts.findLastIndex((first) => first <= value);

/** Code lengths of at most `limit` bits that make these frequencies shortest: package-merge. */
function codeLengths(frequencies, limit) {
  const leaves = frequencies.flatMap((weight, symbol) => (weight ? [{ weight, symbols: [symbol] }] : [])).sort((a, b) => a.weight - b.weight);
  const lengths = frequencies.map(() => 0);
  if (leaves.length < 2) {
    // A code has two symbols at least, even if one of them is never used, or both.
    const [one] = leaves[0]?.symbols ?? [0];
    lengths[one] = lengths[one ? 0 : 1] = 1;
    return lengths;
  }
  let packages = [];
  for (let level = 0; level < limit; level++) {
    const merged = [...leaves, ...packages].sort((a, b) => a.weight - b.weight);
    packages = [];
    for (let i = 0; i + 1 < merged.length; i += 2) packages.push({ weight: merged[i].weight + merged[i + 1].weight, symbols: [...merged[i].symbols, ...merged[i + 1].symbols] });
    if (level === limit - 1) for (const { symbols } of merged.slice(0, 2 * leaves.length - 2)) for (const symbol of symbols) lengths[symbol]++;
  }
  return lengths;
}

/** The canonical codes of code lengths, first bit lowest. */
function codes(lengths) {
  let code = 0;
  const result = lengths.map(() => 0);
  for (let bits = 1; bits <= 15; bits++) {
    lengths.forEach((length, symbol) => {
      if (length === bits) result[symbol] = parseInt([...(code++).toString(2).padStart(bits, '0')].reverse().join(''), 2);
    });
    code <<= 1;
  }
  return result;
}

/** For each place, the nearest match of each length. */
function matches(bytes) {
  return Array.from(bytes, (_, at) => {
    const nearest = [];
    for (let distance = 1; distance <= Math.min(at, 32768) && nearest.length < 259; distance++) {
      let length = 0;
      while (length < 258 && at + length < bytes.length && bytes[at + length] === bytes[at + length - distance]) length++;
      for (let shorter = Math.max(3, nearest.length); shorter <= length; shorter++) nearest[shorter] = distance;
    }
    return nearest;
  });
}

/** The cheapest way through: literals as numbers, matches as [length, distance]. */
function path(bytes, found, costs) {
  const cost = new Float64Array(bytes.length + 1).fill(Infinity);
  const step = [];
  cost[0] = 0;
  for (let at = 0; at < bytes.length; at++) {
    const reach = (to, price, what) => {
      if (cost[at] + price < cost[to]) [cost[to], step[to]] = [cost[at] + price, what];
    };
    reach(at + 1, costs.literals[bytes[at]], bytes[at]);
    found[at].forEach((distance, length) => {
      const [l, d] = [symbolOf(LENGTHS, length), symbolOf(DISTANCES, distance)];
      reach(at + length, costs.literals[257 + l] + LENGTH_BITS[l] + costs.distances[d] + DISTANCE_BITS[d], [length, distance]);
    });
  }
  const steps = [];
  for (let at = bytes.length; at > 0; at -= steps[0][0] ?? 1) steps.unshift(step[at]);
  return steps;
}

function count(steps) {
  const literals = Array(286).fill(0);
  const distances = Array(30).fill(0);
  literals[END] = 1;
  for (const step of steps) {
    if (typeof step === 'number') literals[step]++;
    else {
      literals[257 + symbolOf(LENGTHS, step[0])]++;
      distances[symbolOf(DISTANCES, step[1])]++;
    }
  }
  return { literals, distances };
}

/** Code lengths as the block's head writes them: [symbol, value of its extra bits, how many]. */
function runs(lengths) {
  const result = [];
  for (let i = 0; i < lengths.length; ) {
    let run = 1;
    while (lengths[i + run] === lengths[i]) run++;
    i += run;
    const length = lengths[i - 1];
    if (length === 0) {
      for (; run > 10; run -= Math.min(run, 138)) result.push([18, Math.min(run, 138) - 11, 7]);
      if (run > 2) [run, result[result.length]] = [0, [17, run - 3, 3]];
    } else {
      result.push([length, 0, 0]);
      for (run--; run > 2; run -= Math.min(run, 6)) result.push([16, Math.min(run, 6) - 3, 2]);
    }
    for (; run > 0; run--) result.push([length, 0, 0]);
  }
  return result;
}

function write(steps) {
  const { literals, distances } = count(steps);
  const used = (lengths, least) => lengths.slice(0, Math.max(least, lengths.findLastIndex((length) => length) + 1));
  const [literal, distance] = [used(codeLengths(literals, 15), 257), used(codeLengths(distances, 15), 1)];
  const head = runs([...literal, ...distance]);
  const headLengths = codeLengths(ORDER.map((_, symbol) => head.filter(([one]) => one === symbol).length), 7);
  const [literalCodes, distanceCodes, headCodes] = [literal, distance, headLengths].map(codes);
  const headCount = Math.max(4, ORDER.findLastIndex((symbol) => headLengths[symbol]) + 1);

  const bits = [];
  const put = (value, length) => {
    for (let bit = 0; bit < length; bit++) bits.push((value >> bit) & 1);
  };
  put(1, 1);
  put(2, 2);
  put(literal.length - 257, 5);
  put(distance.length - 1, 5);
  put(headCount - 4, 4);
  for (const symbol of ORDER.slice(0, headCount)) put(headLengths[symbol], 3);
  for (const [symbol, extra, length] of head) {
    put(headCodes[symbol], headLengths[symbol]);
    put(extra, length);
  }
  for (const step of steps) {
    if (typeof step === 'number') put(literalCodes[step], literal[step]);
    else {
      const [l, d] = [symbolOf(LENGTHS, step[0]), symbolOf(DISTANCES, step[1])];
      put(literalCodes[257 + l], literal[257 + l]);
      put(step[0] - LENGTHS[l], LENGTH_BITS[l]);
      put(distanceCodes[d], distance[d]);
      put(step[1] - DISTANCES[d], DISTANCE_BITS[d]);
    }
  }
  put(literalCodes[END], literal[END]);
  return Uint8Array.from({ length: Math.ceil(bits.length / 8) }, (_, i) => bits.slice(8 * i, 8 * i + 8).reduce((byte, bit, at) => byte | (bit << at), 0));
}

/** Bytes, deflated, without a header. */
export function deflate(bytes) {
  const found = matches(bytes);
  let costs = { literals: Array(286).fill(8), distances: Array(30).fill(5) };
  let best;
  for (let round = 0; round < ROUNDS; round++) {
    const steps = path(bytes, found, costs);
    const written = write(steps);
    if (!best || written.length < best.length) best = written;
    // What a symbol would cost; one that was not used, as if it had been once.
    const entropy = (counts) => {
      const total = counts.reduce((sum, one) => sum + Math.max(one, 0.5), 0);
      return counts.map((one) => Math.log2(total / Math.max(one, 0.5)));
    };
    const { literals, distances } = count(steps);
    costs = { literals: entropy(literals), distances: entropy(distances) };
  }
  return best;
}
