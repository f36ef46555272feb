// The stream of samples that the daemon sends once a second; kept for five minutes, connected while somebody looks.
import { defineStore } from "pinia";
import { computed, ref, shallowRef } from "vue";
import { BASE } from "@/api/http";
import type { AlertCounts, LiveSample } from "@/api/types";

const KEPT = 300;

export const useLive = defineStore("live", () => {
  const samples = shallowRef<LiveSample[]>([]);
  /** How many alerts there are; null until the stream has told. */
  const alerts = shallowRef<AlertCounts | null>(null);
  const connected = ref(false);
  let users = 0;
  let source: EventSource | null = null;
  let retry: ReturnType<typeof setTimeout> | undefined;

  const last = computed<LiveSample | null>(() => samples.value.at(-1) ?? null);

  function open(): void {
    clearTimeout(retry);
    source = new EventSource(`${BASE}/live?top=30`);
    source.addEventListener("sample", (event) => {
      connected.value = true;
      const sample = JSON.parse((event as MessageEvent<string>).data) as LiveSample;
      samples.value = [...samples.value.slice(1 - KEPT), sample];
    });
    source.addEventListener("alerts", (event) => {
      alerts.value = JSON.parse((event as MessageEvent<string>).data) as AlertCounts;
    });
    source.onerror = () => {
      connected.value = false;
      // A browser gives up after some errors; we do not.
      if (source?.readyState === EventSource.CLOSED && users > 0) retry = setTimeout(open, 2_000);
    };
  }

  /** Keeps the stream open until the returned function is called. */
  function follow(): () => void {
    users += 1;
    if (users === 1) open();
    return () => {
      users -= 1;
      if (users === 0) {
        clearTimeout(retry);
        source?.close();
        source = null;
        connected.value = false;
      }
    };
  }

  return { samples, alerts, last, connected, follow };
});
