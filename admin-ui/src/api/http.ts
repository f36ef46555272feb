// One way to call the admin API: problem documents become errors, a session that ended asks for a login and goes on.

/** One thing that is wrong with what was sent. `field` is relative to the entry that was sent. */
export interface Problem {
  document?: string;
  path?: string;
  field?: string | null;
  reason: string;
  severity?: "error" | "warning";
  hint?: string | null;
}

/** One difference between what is there and what was sent. */
export interface Difference {
  path: string;
  current: unknown;
  yours: unknown;
}

/** An error's body (RFC 9457), with what the API adds to it. */
export interface ProblemDocument {
  title: string;
  status: number;
  detail?: string;
  problems?: Problem[];
  current?: unknown;
  diff?: Difference[];
  retry_after_s?: number;
}

/** What the API refused, or why it could not be reached (status 0). */
export class ApiError extends Error {
  constructor(readonly document: ProblemDocument) {
    super(document.detail || document.title);
    this.name = "ApiError";
  }
  get status(): number {
    return this.document.status;
  }
  get problems(): Problem[] {
    return this.document.problems ?? [];
  }
}

export interface CallOptions {
  query?: Record<string, string | number | boolean | null | undefined>;
  body?: unknown;
  /** Version that the caller knows, for `If-Match`. */
  etag?: string;
  signal?: AbortSignal;
  /** Do not ask for a login on 401. */
  quiet?: boolean;
}

interface Hooks {
  csrf: () => string | null;
  /** Resolves to true when somebody has signed in again. */
  signIn: () => Promise<boolean>;
}

let hooks: Hooks = { csrf: () => null, signIn: () => Promise.resolve(false) };

export function setHooks(next: Hooks): void {
  hooks = next;
}

export const BASE = "/api/v1";

export function path(...parts: string[]): string {
  return "/" + parts.map(encodeURIComponent).join("/");
}

function url(target: string, query: CallOptions["query"]): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== "") search.set(key, String(value));
  }
  const text = search.toString();
  return BASE + target + (text ? `?${text}` : "");
}

export async function problemOf(response: Response): Promise<ProblemDocument> {
  const fallback = { title: response.statusText || "error", status: response.status };
  const body: unknown = await response.json().catch(() => null);
  return body && typeof body === "object" ? { ...fallback, ...(body as Partial<ProblemDocument>), status: response.status } : fallback;
}

async function once(method: string, target: string, options: CallOptions): Promise<Response> {
  const headers: Record<string, string> = { accept: "application/json" };
  const csrf = hooks.csrf();
  if (csrf && method !== "GET") headers["x-csrf-token"] = csrf;
  if (options.etag) headers["if-match"] = options.etag === "*" ? "*" : `"${options.etag}"`;
  if (options.body !== undefined) headers["content-type"] = "application/json";
  try {
    return await fetch(url(target, options.query), {
      method,
      headers,
      credentials: "same-origin",
      signal: options.signal ?? null,
      body: options.body === undefined ? null : JSON.stringify(options.body),
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError({ title: "unreachable", status: 0, detail: "" });
  }
}

/** Calls the API. Throws an `ApiError` for every answer that is not 2xx. */
export async function call<T>(method: string, target: string, options: CallOptions = {}): Promise<T> {
  let response = await once(method, target, options);
  if (response.status === 401 && !options.quiet && (await hooks.signIn())) {
    response = await once(method, target, options);
  }
  if (!response.ok) throw new ApiError(await problemOf(response));
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

export const get = <T>(target: string, query?: CallOptions["query"], signal?: AbortSignal): Promise<T> =>
  call<T>("GET", target, { ...(query ? { query } : {}), ...(signal ? { signal } : {}) });
