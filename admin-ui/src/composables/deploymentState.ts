import type { DeploymentState } from "@/api/types";

export function levelOf(state: DeploymentState["state"] | undefined): "good" | "warn" | "bad" | "off" {
  if (state === "ready") return "good";
  if (state === "disabled" || state === undefined) return "off";
  return state === "trial" || state === "cooling" ? "warn" : "bad";
}
