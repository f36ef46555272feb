// A form over one entry of the configuration: loaded with its version, checked by the daemon, saved under optimistic
// locking. What somebody typed is never lost: not by a conflict, not by a lost session, not by leaving unasked.
import { computed, onBeforeUnmount, onMounted, ref, type Ref } from "vue";
import { onBeforeRouteLeave } from "vue-router";
import { ElMessage, ElMessageBox } from "element-plus";
import { useI18n } from "vue-i18n";
import { ApiError, type Difference, type Problem } from "@/api/http";
import type { Resource } from "@/api/resources";
import type { Item } from "@/api/types";

export interface Conflict<V> {
  current: Item<V> | null;
  diff: Difference[];
}

function copy<V>(value: V): V {
  return JSON.parse(JSON.stringify(value)) as V;
}

/** Where an empty text or a null is a value like any other. */
const VERBATIM = ["when", "with", "parameters"];

/** Takes out what says nothing: empty texts and nulls. */
export function tidy(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(tidy);
  if (value && typeof value === "object") {
    const entries = Object.entries(value)
      .map(([key, v]) => [key, VERBATIM.includes(key) ? v : tidy(v)] as const)
      .filter(([, v]) => v !== null && v !== undefined && v !== "");
    return Object.fromEntries(entries);
  }
  return value;
}

export function useDraft<V extends object>(resource: Resource<V>, id: string | undefined, fresh: () => V, idOf: (value: V) => string, guard = true) {
  const { t } = useI18n();
  const draft = ref(fresh()) as Ref<V>;
  const saved = ref("");
  const etag = ref("");
  const loading = ref(Boolean(id));
  const saving = ref(false);
  const failure = ref<ApiError | null>(null);
  const problems = ref<Problem[]>([]);
  const conflict = ref<Conflict<V> | null>(null) as Ref<Conflict<V> | null>;
  const isNew = computed(() => !id);
  const dirty = computed(() => !loading.value && JSON.stringify(tidy(draft.value)) !== saved.value);

  function take(item: Item<V>): void {
    draft.value = { ...fresh(), ...copy(item.value) };
    saved.value = JSON.stringify(tidy(draft.value));
    etag.value = item.etag;
  }

  async function load(): Promise<void> {
    if (!id) {
      saved.value = JSON.stringify(tidy(draft.value));
      return;
    }
    loading.value = true;
    try {
      take(await resource.read(id));
      failure.value = null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      failure.value = error;
    } finally {
      loading.value = false;
    }
  }

  /** Saves; resolves to the id if it was, to null if the form has something to say. */
  async function save(withEtag = etag.value): Promise<string | null> {
    saving.value = true;
    problems.value = [];
    failure.value = null;
    const value = tidy(draft.value) as V;
    try {
      const written = id ? await resource.replace(id, value, withEtag) : await resource.create(value);
      saved.value = JSON.stringify(tidy(draft.value));
      etag.value = written.etag;
      conflict.value = null;
      const warnings = written.problems.filter((p) => p.severity !== "error").length;
      ElMessage.success(written.in_force ? t("form.savedLive", { generation: written.generation }) : t("form.saved"));
      if (warnings > 0) ElMessage.warning(t("form.warnings", { n: warnings }));
      return idOf(value);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 409 && error.document.diff) {
        conflict.value = { current: (error.document.current as Item<V> | null) ?? null, diff: error.document.diff };
      } else {
        failure.value = error;
        problems.value = error.problems;
      }
      return null;
    } finally {
      saving.value = false;
    }
  }

  /** After a conflict: what is there now, or what was typed over it. */
  function takeTheirs(): void {
    if (conflict.value?.current) take(conflict.value.current);
    conflict.value = null;
  }
  const keepMine = (): Promise<string | null> => save(conflict.value?.current?.etag ?? "*");

  /** What is wrong with a field or with anything below it. */
  function problemAt(field: string): string {
    const below = (p: Problem) => p.field === field || p.field?.startsWith(field + ".") || p.field?.startsWith(field + "[");
    return problems.value.filter((p) => p.severity !== "warning" && below(p)).map((p) => p.reason).join("; ");
  }
  const elsewhere = computed(() => problems.value.filter((p) => !p.field));

  function beforeUnload(event: BeforeUnloadEvent): void {
    if (dirty.value) event.preventDefault();
  }
  onMounted(() => { if (guard) window.addEventListener("beforeunload", beforeUnload); });
  onBeforeUnmount(() => window.removeEventListener("beforeunload", beforeUnload));
  if (guard) {
    onBeforeRouteLeave(async () => {
      if (!dirty.value) return true;
      return ElMessageBox.confirm(t("form.leaveText"), t("form.leave"), { confirmButtonText: t("form.discard"), cancelButtonText: t("form.stay"), type: "warning" })
        .then(() => true, () => false);
    });
  }
  void load();
  return { draft, etag, loading, saving, failure, problems, conflict, isNew, dirty, load, save, takeTheirs, keepMine, problemAt, elsewhere };
}
