// The shapes of the admin API as views use them. They are generated from the daemon's OpenAPI document (`make api-types`);
// here only entries of documents get their type, and what is edited as a tree keeps a looser one.
import type * as api from "./schema";

export type Json = unknown;

export type {
  Account,
  Alert,
  AlertCounts,
  AlertReceiver,
  AlertRule,
  AlertRuleName,
  AlertSettings,
  AlertSilence,
  Algorithm,
  AuditPage,
  AuditRow,
  BalancerState,
  Channel,
  ChannelKey,
  Cluster,
  Counted,
  Counters,
  CountingRule,
  CreatedAccount,
  CreatedToken,
  Deployment,
  DocumentList,
  Experiment,
  ExperimentInForce,
  Group,
  DeploymentState,
  EmergencyState,
  Instance,
  Latencies,
  Limit,
  LiveLimit,
  LiveSample,
  MadeKey,
  Member,
  Metric,
  Model,
  ModelCounting,
  Oidc,
  OidcRoles,
  OidcWay,
  Origin,
  Override,
  Parameter,
  Percentiles,
  Price,
  Provider,
  RedisState,
  Relief,
  RequestLine,
  RequestPage,
  Role,
  Schedule,
  Settings,
  SourceState,
  Template,
  Token,
  UsageSeries,
} from "./schema";
export type Explanation = api.Explanation;
/** Who is signed in; a page that does not know yet knows nothing else. */
export type Session = Partial<api.SignedIn> & Pick<api.SignedIn, "signed_in">;
export type LivePart = api.Part;
/** What came of a group of an experiment; its share is null where it is in force no more. */
export type GroupResults = api.GroupOutcome;

/** One entry of a document, with its version. */
export type Item<V> = Omit<api.Item, "value"> & { value: V };
export type Written<V> = Omit<api.Written, keyof api.Item> & Item<V>;
export type Removed = api.Written;
export type Page<V> = Omit<api.Page, "items"> & { items: Item<V>[] };

export type Valued<T> = { value: T; origin: api.Origin };

/** What a channel comes to; the limits as they were written. */
export type Effective = Omit<api.Effective, "limits" | "global_limits"> & {
  limits: (Omit<api.EffectiveLimit, "value" | "replaces"> & { value: api.Limit; replaces: WrittenLimit[] })[];
  global_limits: WrittenLimit[];
};
type WrittenLimit = Omit<api.WrittenLimit, "value"> & { value: api.Limit };

/** A condition while it is put together. */
export interface Condition {
  all?: Condition[];
  any?: Condition[];
  not?: Condition;
  field?: string;
  op?: string;
  value?: Json;
}

/** An action while it is put together. */
export interface Action {
  tag?: string;
  set_channel?: string;
  set_model?: string;
  set_version?: string;
  set_deployment?: string;
  cap_max_tokens?: number;
  shadow?: Action | Action[];
  deny?: { status?: number; code?: string; message?: string };
  allow?: boolean;
}

/** A rule while it is put together. */
export interface Rule {
  name: string;
  priority?: number;
  enabled?: boolean;
  when?: Condition | null;
  then?: Action | Action[] | null;
  template?: string | null;
  with?: { [key: string]: Json };
}

/** A rule template while it is put together. */
export type RuleTemplate = Omit<api.RuleTemplate, "when" | "then"> & { when?: Condition | null; then: Action | Action[] };
