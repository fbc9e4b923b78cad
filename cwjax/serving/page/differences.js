// Which words of two lists differ: the shortest edit script of Myers (1986).
const MOST = 3000; // edits; beyond that the texts have little in common

// For each word of either list whether it stands in the other, too.
export function same(first, second) {
  const kept = [new Array(first.length).fill(false), new Array(second.length).fill(false)];
  let start = 0;
  while (start < first.length && start < second.length && first[start] === second[start]) start++;
  let [end, other] = [first.length, second.length];
  while (end > start && other > start && first[end - 1] === second[other - 1]) end--, other--;
  kept[0].fill(true, 0, start).fill(true, end);
  kept[1].fill(true, 0, start).fill(true, other);
  for (const [x, y] of common(first.slice(start, end), second.slice(start, other))) {
    kept[0][start + x] = kept[1][start + y] = true;
  }
  return kept;
}

function common(first, second) {
  const [n, m] = [first.length, second.length];
  const furthest = new Map([[1, 0]]);
  const steps = [];
  for (let edits = 0; edits <= Math.min(n + m, MOST); edits++) {
    steps.push(new Map(furthest));
    for (let k = -edits; k <= edits; k += 2) {
      let x = goesDown(furthest, k, edits) ? furthest.get(k + 1) : furthest.get(k - 1) + 1;
      while (x < n && x - k < m && first[x] === second[x - k]) x++;
      furthest.set(k, x);
      if (x >= n && x - k >= m) return pairs(steps, n, m, edits);
    }
  }
  return [];
}

const goesDown = (furthest, k, edits) =>
  k === -edits || (k !== edits && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));

function pairs(steps, n, m, edits) {
  const found = [];
  let [x, y] = [n, m];
  for (; edits >= 0; edits--) {
    const k = x - y;
    const before = goesDown(steps[edits], k, edits) ? k + 1 : k - 1;
    const [x0, y0] = edits ? [steps[edits].get(before), steps[edits].get(before) - before] : [0, 0];
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
