// Deleting asks once, and can be undone for as long as the message stands.
import { h } from "vue";
import { ElButton, ElMessage, ElMessageBox } from "element-plus";
import { useI18n } from "vue-i18n";
import { ApiError } from "@/api/http";
import type { Resource } from "@/api/resources";
import type { Item } from "@/api/types";

export function useRemove<V>(resource: Resource<V>, after: () => unknown) {
  const { t } = useI18n();
  return async (item: Item<V>): Promise<boolean> => {
    const sure = await ElMessageBox.confirm(t("form.removeText", { id: item.id }), t("form.removeTitle"), {
      confirmButtonText: t("form.remove"), cancelButtonText: t("form.cancel"), type: "warning", confirmButtonClass: "el-button--danger",
    }).then(() => true, () => false);
    if (!sure) return false;
    try {
      await resource.remove(item.id, item.etag);
      const undo = async (): Promise<void> => {
        try {
          await resource.create(item.value);
          ElMessage.success(t("form.undone"));
          await after();
        } catch (error) {
          if (!(error instanceof ApiError)) throw error;
          // A provider's credential cannot be read, so that it cannot be written back: the history has it sealed.
          ElMessage.error({ message: t("form.undoFailed", { reason: error.problems[0]?.reason ?? error.message }), duration: 8_000 });
        }
      };
      ElMessage({
        type: "success", duration: 10_000, showClose: true,
        message: h("span", [t("form.removed", { id: item.id }) + " ", h(ElButton, { size: "small", text: true, type: "primary", onClick: () => void undo() }, () => t("form.undo"))]),
      });
      await after();
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      ElMessage.error(error.problems[0]?.reason ?? error.message);
      return false;
    }
  };
}
