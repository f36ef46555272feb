// Alerts: what is wrong, who looks at it, and who is not to be told.
import { call, get, path } from "./http";
import type { AlertList, AlertRuleName, AlertSilence, AlertTrial, OneAlert } from "./schema";

export const alerts = () => get<AlertList>("/alerts");
export const acknowledge = (id: string, comment: string) => call<OneAlert>("POST", path("alerts", id, "ack"), { body: { comment } });
export const takeBack = (id: string) => call<OneAlert>("DELETE", path("alerts", id, "ack"));
export const silence = (body: { rule: AlertRuleName | null; labels: Record<string, string>; for: string; comment: string }) => call<AlertSilence>("POST", "/alerts/silences", { body });
export const endSilence = (id: string) => call<AlertSilence>("DELETE", path("alerts", "silences", id));
/** Sends a receiver a message that only shows that messages arrive. */
export const tryReceiver = (name: string) => call<AlertTrial>("POST", path("alerts", "receivers", name, "test"));
