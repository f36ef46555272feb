// A page of a resource: search, order, pages by key, all of it done by the API.
import { ref, shallowRef, watch } from "vue";
import { ApiError } from "@/api/http";
import type { ListQuery, Resource } from "@/api/resources";
import type { Item } from "@/api/types";

export function useList<V>(resource: Resource<V>, more: () => ListQuery = () => ({}), size = 100) {
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

  async function load(append = false): Promise<void> {
    running?.abort();
    const mine = (running = new AbortController());
    loading.value = true;
    try {
      const page = await resource.list(
        { search: search.value, sort: sort.value, order: order.value, limit: size, after: append ? next.value : null, ...more() },
        mine.signal,
      );
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

  let timer: ReturnType<typeof setTimeout> | undefined;
  watch(search, () => {
    clearTimeout(timer);
    timer = setTimeout(() => void load(), 200);
  });
  function sorted(by: { prop: string | null; order: string | null }): void {
    sort.value = by.order ? (by.prop ?? "") : "";
    order.value = by.order === "descending" ? "desc" : "asc";
    void load();
  }
  void load();
  return { items, total, matched, search, next, loading, error, load, sorted };
}
