// Limits as people read them: amounts in the unit of what they count, and words for what nobody has named.
import { useI18n } from "vue-i18n";
import type { Limit } from "@/api/types";
import { grouped } from "./format";
import { money, useCurrency } from "./money";

/** The largest maximum. */
export const MOST = 549_755_813_887;
/** Documents have money in millionths of the currency's unit; people have it in units. */
const scale = (metric: string): number => (metric === "cost" ? 1e6 : 1);
export const shown = (metric: string, kept: number): number => kept / scale(metric);
export const kept = (metric: string, typed: number): number => Math.min(MOST, Math.round(typed * scale(metric)));

/** What a name such as `cost/1h:each model` is made of; null for one that somebody gave. */
export function metricOf(name: string): string | null {
  const [metric = ""] = name.split(/[/:]/, 1);
  return ["connections", "requests", "input_tokens", "output_tokens", "total_tokens", "cost"].includes(metric) ? metric : null;
}

/** The parts of such a name; null for one that somebody gave. */
export function namedBy(name: string): { metric: string; window: string; model: string; each: boolean } | null {
  const metric = metricOf(name);
  const found = metric && /^[a-z_]+(?:\/([^:]+))?(?::(each )?(.+))?$/.exec(name);
  if (!metric || !found) return null;
  const [, window = "", each, model = ""] = found;
  return { metric, window, model: each && model === "model" ? "" : model, each: Boolean(each) };
}

/** `spent` says whether money may be among them: only then is the currency asked for. */
export function useLimits(spent: () => boolean = () => true) {
  const { t } = useI18n();
  const currency = useCurrency(spent);
  const amount = (metric: string, n: number, words: (n: number) => string = grouped): string => (metric === "cost" ? money(n, currency.value) : words(n));
  function sentence(limit: Limit): string {
    const scope = limit.per_model ? (limit.model ? t("limit.eachOf", { model: limit.model }) : t("limit.eachModel")) : limit.model ? t("limit.forModel", { model: limit.model }) : "";
    const max = amount(limit.metric, limit.max ?? 0);
    const rule = limit.metric === "connections" ? t("limit.atOnce", { max }) : t("limit.perWindow", { max, what: t(`metric.${limit.metric}`), window: limit.window ?? "?" });
    return `${rule} ${scope}`.trim();
  }
  /** What a limit is called: as it was named, or what it counts. */
  function called(name: string): string {
    const of = namedBy(name);
    if (!of) return name;
    const what = t(`metric.${of.metric}`);
    const counts = of.window ? t("limit.called", { what, window: of.window }) : what;
    return `${counts} ${of.model || of.each ? t(of.each ? (of.model ? "limit.eachOf" : "limit.eachModel") : "limit.forModel", { model: of.model }) : ""}`.trim();
  }
  return { currency, amount, sentence, called };
}
