// Something that is read again and again while it is looked at, and says when it could not be read.
import { onBeforeUnmount, ref, shallowRef, type Ref, type ShallowRef } from "vue";
import { ApiError } from "@/api/http";

export interface Polled<T> {
  data: ShallowRef<T | null>;
  error: Ref<ApiError | null>;
  loading: Ref<boolean>;
  refresh: () => Promise<void>;
}

/** Reads at once and then every `everyMs` (0: never again). A slow answer delays the next question instead of piling up. */
export function usePolled<T>(read: () => Promise<T>, everyMs = 0): Polled<T> {
  const data = shallowRef<T | null>(null);
  const error = ref<ApiError | null>(null);
  const loading = ref(true);
  let timer: ReturnType<typeof setTimeout> | undefined;
  let gone = false;
  let asked = 0;

  async function refresh(): Promise<void> {
    clearTimeout(timer);
    asked += 1;
    const mine = asked;
    loading.value = true;
    try {
      const found = await read();
      if (mine === asked) {
        data.value = found;
        error.value = null;
      }
    } catch (failure) {
      if (mine === asked && failure instanceof ApiError) error.value = failure;
      else if (!(failure instanceof ApiError) && !(failure instanceof DOMException)) throw failure;
    } finally {
      if (mine === asked) {
        loading.value = false;
        if (everyMs > 0 && !gone) timer = setTimeout(() => void refresh(), document.hidden ? everyMs * 5 : everyMs);
      }
    }
  }

  onBeforeUnmount(() => {
    gone = true;
    clearTimeout(timer);
  });
  void refresh();
  return { data, error, loading, refresh };
}
