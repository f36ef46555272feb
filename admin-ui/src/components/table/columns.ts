// What a table's columns are, and the arithmetic of showing only the rows near the window.

export interface Column {
  /** Names the slot `#key`. */
  key: string;
  label: string;
  /** A track of a CSS grid; it must not depend on the cell's content, so that rows line up. */
  width?: string;
  align?: "right";
  /** The API orders by this field. */
  sort?: string;
  /** Its label needs no place on a card: the cell speaks for itself. */
  bare?: boolean;
}

/** Where rows begin, and after the last where it ends; `heightOf` says undefined for rows that were never seen. */
export function offsets(count: number, heightOf: (index: number) => number | undefined, usual: number): Float64Array {
  const found = new Float64Array(count + 1);
  for (let i = 0; i < count; i += 1) found[i + 1] = (found[i] ?? 0) + (heightOf(i) ?? usual);
  return found;
}

/** The row that lies at a height: the last that begins at or above it. */
export function rowAt(places: Float64Array, y: number): number {
  let low = 0;
  let high = Math.max(0, places.length - 2);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((places[middle] ?? 0) <= y) low = middle;
    else high = middle - 1;
  }
  return low;
}
