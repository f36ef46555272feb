// A resource's entries: search, order, pages by key, all of it done by the API. Further pages come as they are scrolled to.
import { ref, shallowRef, watch } from "vue";
import { ApiError } from "@/api/http";
import type { ListQuery, Resource } from "@/api/resources";
import type { Item } from "@/api/types";

/** The longest page that the API gives. */
const MOST = 1000;

export function useList<V>(resource: Resource<V>, more: () => ListQuery = () => ({}), size = 200) {
  const items = shallowRef<Item<V>[]>([]);
  const total = ref(0);
  const matched = ref(0);
  const search = ref("");
  const sort = ref("");
  const order = ref<"asc" | "desc">("asc");
  const next = ref<string | null>(null);
  const loading = ref(true);
  const error = ref<ApiError | null>(null);
  let running: AbortController | null = null;

  async function ask(append: boolean, limit: number): Promise<void> {
    running?.abort();
    const mine = (running = new AbortController());
    loading.value = true;
    try {
      const query = { search: search.value, sort: sort.value, order: order.value, limit, after: append ? next.value : null, ...more() };
      const page = await resource.list(query, mine.signal);
      items.value = append ? [...items.value, ...page.items] : page.items;
      total.value = page.total;
      matched.value = page.matched;
      next.value = page.next;
      error.value = null;
    } catch (failure) {
      if (failure instanceof ApiError) error.value = failure;
      else if (!(failure instanceof DOMException)) throw failure;
    } finally {
      if (mine === running) loading.value = false;
    }
  }

  /** Reads what is shown again, as far down as it has been read. */
  const load = (): Promise<void> => ask(false, Math.min(MOST, Math.max(size, items.value.length)));
  /** Reads the next page, if there is one. */
  const further = (): Promise<void> => (next.value === null || loading.value || error.value ? Promise.resolve() : ask(true, size));

  let timer: ReturnType<typeof setTimeout> | undefined;
  watch(search, () => {
    clearTimeout(timer);
    timer = setTimeout(() => void ask(false, size), 200);
  });
  function sorted(field: string, direction: "asc" | "desc"): void {
    sort.value = field;
    order.value = direction;
    void ask(false, size);
  }
  void load();
  return { items, total, matched, search, sort, order, next, loading, error, load, further, sorted };
}
