// The shapes of the admin API that views work with. `npm run types:check` holds the names of resources against the
// daemon's OpenAPI document.

export type Json = unknown;

export interface Session {
  signed_in: boolean;
  account?: { name: string; display_name: string; roles: string[]; channels: string[]; must_change_password: boolean };
  via?: "session" | "token" | "break_glass";
  csrf?: string | null;
  expires_at_ms?: number | null;
  permissions?: Record<string, string[]>;
}

/** One entry of a document, with its version. */
export interface Item<V> {
  id: string;
  etag: string;
  document: string;
  index: number;
  value: V;
}

export interface Written<V> extends Item<V> {
  written: boolean;
  in_force: boolean;
  generation: number;
  problems: { reason: string; path?: string; severity?: string }[];
}

export interface Page<V> {
  items: Item<V>[];
  total: number;
  matched: number;
  next: string | null;
  in_force: boolean;
  generation: number;
}

export type Metric = "connections" | "requests" | "input_tokens" | "output_tokens" | "total_tokens" | "cost";
export type Algorithm = "sliding_window" | "fixed_window" | "token_bucket" | "leaky_bucket" | "concurrency";

export interface Limit {
  name?: string | null;
  metric: Metric;
  max: number;
  window?: string | null;
  algorithm?: Algorithm | null;
  burst?: number | null;
  max_delay?: string | null;
  enforcement?: "strict" | "soft" | null;
  model?: string | null;
  per_model?: boolean;
  on_full?: "closed" | "open";
}

export interface ChannelKey {
  id: string;
  sha256: string;
  expires_at?: string | null;
  enabled?: boolean;
}

export interface Channel {
  code: string;
  name?: string;
  enabled?: boolean;
  extends?: string | null;
  keys?: ChannelKey[];
  trusted?: boolean;
  models?: { allow?: string[] | null; deny?: string[] };
  limits?: Limit[];
  abort_policy?: "counted" | "reserved" | null;
  enforcement?: "strict" | "soft" | null;
  tags?: string[];
}

export interface Template extends Omit<Channel, "code" | "name" | "enabled" | "keys" | "trusted"> {
  name: string;
}

export interface Deployment {
  id?: string | null;
  provider: string;
  upstream_model?: string | null;
  weight?: number;
  version?: string;
  enabled?: boolean;
  limits?: Limit[];
}

export interface Model {
  name: string;
  aliases?: string[];
  deployments: Deployment[];
  limits?: Limit[];
  max_output_tokens?: number;
  default_max_tokens?: number;
  max_body_bytes?: number;
  timeouts?: { connect?: string; first_token?: string; idle?: string; total?: string };
  tokenizer?: string | null;
  fallback?: string[];
  routing?: {
    balance?: string;
    affinity?: string | null;
    latest?: string | null;
    panic_percent?: number;
    slow_start?: string;
    breaker?: { failures?: number; open?: string; max_open?: string };
    retry?: { attempts?: number; budget_percent?: number };
  };
}

export interface Provider {
  id: string;
  protocol: "openai" | "anthropic" | "gemini" | "other";
  base_url: string;
  credentials?: { type: "none" | "bearer" | "x_api_key" | "header"; name?: string | null; key?: string | null; encrypted?: string | null; key_ref?: string | null };
  tls?: { verify?: boolean; server_name?: string | null; ca_file?: string | null };
  host_header?: string | null;
  health_check?: { [key: string]: Json } | null;
  enabled?: boolean;
}

export interface Condition {
  all?: Condition[];
  any?: Condition[];
  not?: Condition;
  field?: string;
  op?: string;
  value?: Json;
}

export interface Action {
  tag?: string;
  set_channel?: string;
  set_model?: string;
  set_version?: string;
  cap_max_tokens?: number;
  shadow?: Action | Action[];
  deny?: { status?: number; code?: string; message?: string };
  allow?: boolean;
}

export interface Rule {
  name: string;
  priority?: number;
  enabled?: boolean;
  when?: Condition | null;
  then?: Action | Action[] | null;
  template?: string | null;
  with?: { [key: string]: Json };
}

export interface CountingRule {
  name: string;
  models: string[];
  [key: string]: unknown;
}

export interface LiveLimit {
  name: string;
  scope: "channel" | "channel_model" | "model" | "global" | "deployment";
  model: string;
  metric: Metric;
  algorithm: Algorithm;
  enforcement: "strict" | "soft";
  window_ms: number;
  max: number;
  used: number;
  left: number;
  debt: number;
  reset_ms: number;
  key: string;
}

export interface DeploymentState {
  id: string;
  model: string | null;
  provider: string | null;
  upstream_model: string;
  version: string;
  weight: number;
  enabled: boolean;
  addresses: string[] | null;
  state: "ready" | "trial" | "broken" | "cooling" | "unhealthy" | "disabled";
  reason: string;
  quota: LiveLimit[];
  probe: { kind: string; verdict: string; since_ms: number; reason: string } | null;
  breaker?: { state: string; retry_in_ms: number | null; failures_in_row: number; opened: number };
  latency_us?: number | null;
  in_flight?: number;
  attempts?: number;
  failed?: Record<string, number>;
  connections?: { made: number; reused: number };
}

export interface RequestLine {
  number?: number;
  time_ms: number;
  request_id: string;
  channel: string;
  model: string;
  deployment: string;
  generation: number;
  status: number;
  class: string;
  source: string;
  input_tokens: number;
  output_tokens: number;
  cached_tokens: number;
  reasoning_tokens: number;
  estimated_tokens: number;
  counted_tokens: number;
  debt_tokens: number;
  reserved_input: number;
  reserved_output: number;
  latency_us: number;
  first_token_us: number | null;
  counting: string;
  flags: string;
  limit_key: string;
  limit: string | null;
  rule: string;
}

/** Milliseconds; null without a request. */
export interface Percentiles {
  p50: number | null;
  p90: number | null;
  p99: number | null;
}

/** A channel or a model within the last second. */
export interface LivePart {
  name: string;
  requests_per_s: number;
  tokens_per_s: number;
  errors_per_s: number;
  in_flight: number;
}

export interface LiveSample {
  at_ms: number;
  requests_per_s: number;
  input_tokens_per_s: number;
  output_tokens_per_s: number;
  errors_per_s: number;
  refused_per_s: number;
  in_flight: number;
  latency_ms: Percentiles;
  first_token_ms: Percentiles;
  by_class: Record<string, number>;
  channels: LivePart[];
  models: LivePart[];
  generation: number;
  workers: { alive: number; behind: number };
}

export interface UsageSeries {
  step: number;
  from: number;
  to: number;
  times: number[];
  series: { channel: string | null; model: string | null; total: Record<string, number>; values: Record<string, number[]> }[];
  others: { total: Record<string, number>; values: Record<string, number[]> } | null;
  truncated: boolean;
}

export interface AuditRow {
  seq: number;
  at_ms: number;
  actor: string;
  via: string;
  address: string;
  method: string;
  path: string;
  resource: string;
  action: string;
  target: string;
  outcome: "ok" | "denied" | "failed";
  status: number;
  repeated: number;
  detail: { before?: Json; after?: Json; diff?: { path: string; from: Json; to: Json }[] } | null;
  hash: string;
}

export interface Account {
  name: string;
  display_name: string;
  roles: string[];
  channels: string[];
  enabled: boolean;
  must_change_password: boolean;
  created_at_ms: number;
  last_login_ms: number | null;
  etag: string;
}

export interface Token {
  id: string;
  account: string;
  label: string;
  permissions: Record<string, string[]> | null;
  channels: string[] | null;
  created_at_ms: number;
  expires_at_ms: number | null;
  last_used_ms: number | null;
}

export interface Origin {
  kind: "channel" | "template" | "default" | "settings";
  name: string | null;
}

export interface Valued<T> {
  value: T;
  origin: Origin;
}

export interface Effective {
  code: string;
  chain: string[];
  enabled: boolean;
  allow: Valued<string[] | null>;
  deny: Valued<string>[];
  tags: Valued<string>[];
  abort_policy: Valued<string>;
  enforcement: Valued<string>;
  limits: { value: Limit; enforcement: string; origin: Origin; name: string; replaces: { value: Limit; origin: Origin }[] }[];
  global_limits: { value: Limit; origin: Origin }[];
}

export interface Instance {
  version: string;
  uptime_ms: number;
  pid: number;
  generation: number;
  published_age_ms: number;
  documents_in_force: boolean;
  errors: number;
  warnings: number;
  problems: { document?: string; path?: string; reason: string; severity?: string }[];
  region: { path: string; id: string; layout: number; bytes: number; gauges: Record<string, number>; sizes: Record<string, number> };
  ring: { depth: number; dropped: number };
  ledger: { events: number; commits: number; failures: number };
  workers: {
    slot: number;
    pid: number;
    alive: boolean;
    generation: number;
    uptime_ms: number;
    heartbeat_age_ms: number;
    requests: number;
    panics: number;
    events_dropped: number;
    resident_bytes: number | null;
  }[];
}

export interface Explanation {
  admitted: boolean;
  decided_by: string;
  status: number | null;
  code: string;
  message: string;
  channel: { code: string | null; source: string | null; key: string | null };
  rules: { rule: string; matched: boolean | null; failed: string | null }[];
  changes: { channel: string | null; model: string | null; cap_max_tokens: number | null; tags: string[]; shadow: [string, string][] };
  model: { asked: string; name: string | null; permitted: boolean } | null;
  input: { tokens: number; bound: number; estimated: boolean; tokenizer: string; rule: string } | null;
  output: { wanted: number; reserved: number } | null;
  limits: (LiveLimit & { wanted: number; after: number; fits: boolean })[];
  deployments: { id: string; provider: string; upstream_model: string; version: string; usable: boolean; share: number }[];
}
