// Something that is done at a click: asked about first if it cannot be taken back, busy while it runs, and said how it went.
import { ref } from "vue";
import { ElMessage, ElMessageBox } from "element-plus";
import { useI18n } from "vue-i18n";
import { ApiError } from "@/api/http";

/** What a change of a document answers. */
interface InForce {
  in_force?: boolean;
  generation?: number;
}

export function useDeed(after: () => unknown = () => undefined) {
  const { t } = useI18n();
  /** Name of what runs. */
  const busy = ref("");

  /** Asks once; resolves to whether it is wanted. */
  function sure(text: string, title: string, button = title): Promise<boolean> {
    return ElMessageBox.confirm(text, title, {
      confirmButtonText: button, cancelButtonText: t("form.cancel"), type: "warning", confirmButtonClass: "el-button--danger",
    }).then(() => true, () => false);
  }

  /** Does it; resolves to whether it went well. */
  async function run(name: string, deed: () => Promise<InForce | void>, said?: string): Promise<boolean> {
    busy.value = name;
    try {
      const done = (await deed()) ?? {};
      if (done.in_force === false) ElMessage.warning(t("emergency.notInForce"));
      else ElMessage.success(said ?? (done.generation ? t("emergency.doneLive", { generation: done.generation }) : t("emergency.done")));
      await after();
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      ElMessage.error(error.problems[0]?.reason ?? (error.message || t("error.unreachable")));
      return false;
    } finally {
      busy.value = "";
    }
  }

  return { busy, sure, run };
}
