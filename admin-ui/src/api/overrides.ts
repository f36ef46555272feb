// What an instance has of its own: its document over the documents that all instances share.
import { ApiError, BASE, call, path, problemOf } from "./http";

export interface OwnDocument {
  /** Merge patches: `settings`, and by their names `providers` and `models`. */
  instance: { settings?: object; providers?: Record<string, object>; models?: Record<string, object> };
}

const nameOf = (instance: string) => `tollgate.instance.${instance}.json`;

/** The instance's document and its version; none if it has nothing of its own. */
export async function readOwn(instance: string): Promise<{ value: OwnDocument; etag: string }> {
  const response = await fetch(BASE + path("documents", nameOf(instance)), { credentials: "same-origin", headers: { accept: "application/json" } }).catch(() => null);
  if (!response) throw new ApiError({ title: "unreachable", status: 0 });
  if (response.status === 404) return { value: { instance: {} }, etag: "" };
  if (!response.ok) throw new ApiError(await problemOf(response));
  return { value: (await response.json()) as OwnDocument, etag: (response.headers.get("etag") ?? "").replaceAll('"', "") };
}

export const writeOwn = (instance: string, value: OwnDocument, etag: string, message: string) =>
  call<{ in_force: boolean; generation: number }>("PUT", path("documents", nameOf(instance)), { body: value, query: { message }, ...(etag ? { etag } : {}) });
