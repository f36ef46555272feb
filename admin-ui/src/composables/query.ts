// What a page's address says of it.
import type { LocationQuery } from "vue-router";

/** A query parameter's text; the fallback if there is none, or several of that name. */
export function queryText(query: LocationQuery, name: string, fallback = ""): string {
  const value = query[name];
  return typeof value === "string" ? value : fallback;
}
