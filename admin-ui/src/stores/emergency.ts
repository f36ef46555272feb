// What is in force of emergency actions, for every page to show; and where the drawer with them stands.
import { defineStore } from "pinia";
import { ref, shallowRef, watch } from "vue";
import { ApiError } from "@/api/http";
import { emergency as read, type Owner } from "@/api/operations";
import type { EmergencyState } from "@/api/types";
import { useLive } from "@/stores/live";
import { useSession } from "@/stores/session";

/** Every change is a new generation, which the live stream tells; this is for when it does not. */
const EVERY = 10_000;

export const useEmergency = defineStore("emergency", () => {
  const state = shallowRef<EmergencyState | null>(null);
  const open = ref(false);
  /** What the drawer is about when it opens. */
  const about = ref<Owner>({ kind: "channel", name: "" });
  let timer: ReturnType<typeof setTimeout> | undefined;
  let shown = false;

  async function refresh(): Promise<void> {
    clearTimeout(timer);
    try {
      if (useSession().may("limits", "read")) state.value = await read();
    } catch (error) {
      // What was known stays until the daemon answers again.
      if (!(error instanceof ApiError)) throw error;
    }
    clearTimeout(timer);
    if (shown) timer = setTimeout(() => void refresh(), EVERY);
  }

  /** Keeps it up to date until the returned function is called. */
  function follow(): () => void {
    shown = true;
    const live = useLive();
    const stop = watch(() => live.last?.generation, () => void refresh(), { immediate: true });
    return () => {
      shown = false;
      stop();
      clearTimeout(timer);
    };
  }

  function show(owner: Owner): void {
    about.value = owner;
    open.value = true;
  }

  return { state, open, about, refresh, follow, show };
});
