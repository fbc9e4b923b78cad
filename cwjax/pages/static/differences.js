// Which words of two lists differ: the shortest edit script of Myers (1986), found piece by piece.
const MOST = 1000; // edits of a piece: time and memory grow by their square

// For each word of either list whether it stands in the other, too.
export function same(first, second) {
  const kept = [new Array(first.length).fill(false), new Array(second.length).fill(false)];
  let [x, y] = [0, 0];
  while (x < first.length && y < second.length) {
    const [pairs, along, down] = piece(first, second, x, y);
    for (const [one, other] of pairs) kept[0][x + one] = kept[1][y + other] = true;
    [x, y] = [x + along, y + down];
  }
  return kept;
}

// From a place in both lists on: pairs of equal words, and how far in each list `MOST` edits lead at most.
function piece(first, second, x0, y0) {
  const [n, m] = [first.length - x0, second.length - y0];
  const most = Math.min(n + m, MOST);
  const furthest = new Int32Array(2 * most + 3); // x by diagonal k = x - y, which stands at k + most + 1
  const steps = [];
  let end = [0, 0, 0];
  for (let edits = 0; edits <= most; edits++) {
    steps.push(furthest.slice(most - edits, most + edits + 3));
    for (let k = -edits; k <= edits; k += 2) {
      const at = k + most + 1;
      let x = goesDown(furthest, at, k, edits) ? furthest[at + 1] : furthest[at - 1] + 1;
      while (x < n && x - k < m && first[x0 + x] === second[y0 + x - k]) x++;
      furthest[at] = x;
      if (x <= n && x - k <= m && 2 * x - k >= end[0] + end[1]) end = [x, x - k, edits];
      if (x >= n && x - k >= m) return [pairsOf(steps, n, m, edits), n, m];
    }
  }
  return [pairsOf(steps, ...end), end[0], end[1]];
}

const goesDown = (furthest, at, k, edits) => k === -edits || (k !== edits && furthest[at - 1] < furthest[at + 1]);

function pairsOf(steps, x, y, edits) {
  const found = [];
  for (; edits >= 0; edits--) {
    const [k, step] = [x - y, steps[edits]];
    const at = k + edits + 1;
    const before = goesDown(step, at, k, edits) ? k + 1 : k - 1;
    const [x0, y0] = edits ? [step[before + edits + 1], step[before + edits + 1] - before] : [0, 0];
    while (x > x0 && y > y0) found.push([--x, --y]);
    [x, y] = [x0, y0];
  }
  return found;
}

// Stretches in which the lists differ: [first of one, end of one, first of the other, end of the other].
export function stretches([mine, theirs]) {
  const found = [];
  let [x, y] = [0, 0];
  while (x < mine.length || y < theirs.length) {
    const [x0, y0] = [x, y];
    while (x < mine.length && !mine[x]) x++;
    while (y < theirs.length && !theirs[y]) y++;
    if (x > x0 || y > y0) found.push([x0, x, y0, y]);
    else x++, y++;
  }
  return found;
}
