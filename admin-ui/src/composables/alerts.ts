// Alerts in words of whoever looks, and as colours.
import { useI18n } from "vue-i18n";
import type { Alert } from "@/api/types";
import { useLimits } from "@/composables/limits";
import { useNames } from "@/composables/names";

const short = (n: number): string => String(Math.abs(n) >= 10 ? Math.round(n) : Math.round(n * 10) / 10);

export function useAlertWords() {
  const { t, te } = useI18n();
  const names = useNames();
  const { called } = useLimits(() => false);
  /** What is wrong in one line; what the daemon says of a rule that no text knows. */
  function said(alert: Alert): string {
    const key = `alerts.said.${alert.rule}`;
    if (!te(key)) return alert.summary;
    const whose = alert.labels.channel ?? alert.labels.model ?? t("alerts.everything");
    const words = { ...alert.labels, limit: called(alert.labels.limit ?? ""), whose, value: short(alert.value) };
    // What expires has no days left once it has.
    return alert.value <= 0 && te(`alerts.ended.${alert.rule}`) ? t(`alerts.ended.${alert.rule}`, words) : t(`alerts.said.${alert.rule}`, words);
  }
  const level = (alert: Alert): "good" | "warn" | "bad" | "off" => {
    if (alert.state === "resolved") return "good";
    if (alert.state === "pending" || alert.acknowledged || alert.silence) return "off";
    return alert.severity === "critical" ? "bad" : "warn";
  };
  return { said, level, rule: (name: string) => names.of("alerts.name", name), severity: (name: string) => t(`alerts.level.${name}`) };
}
