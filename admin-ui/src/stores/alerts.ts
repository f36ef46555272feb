// How many alerts there are, for every page to show: the live stream tells it when that changes.
import { defineStore } from "pinia";
import { computed } from "vue";
import { useLive } from "@/stores/live";

export const useAlerts = defineStore("alerts", () => {
  const live = useLive();
  const counts = computed(() => live.alerts ?? { pending: 0, firing: 0, critical: 0, quiet: 0 });
  /** Those that somebody should look at. */
  const loud = computed(() => counts.value.firing - counts.value.quiet);
  return { counts, loud };
});
