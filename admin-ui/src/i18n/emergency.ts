// What is done at once when something goes wrong, and what is in force of it.
import type { Texts } from ".";

export const emergency = {
  "emergency.title": ["Emergency", "应急"], "emergency.lead": ["These act at once, on every instance that shares the documents, and stand in the audit log.", "以下操作立即作用于共享文档的所有实例，并写入审计日志。"],
  "emergency.reason": ["Reason, for the audit log", "原因（写入审计）"], "emergency.done": ["Done.", "已完成。"], "emergency.doneLive": ["Done, and in force as generation {generation}.", "已完成，第 {generation} 代配置已生效。"], "emergency.notInForce": ["Written, but not in force: the documents have errors, see Instances.", "已写入但未生效：配置有误，见「实例」。"],
  "emergency.inForce": ["In force now", "当前生效"], "emergency.nothing": ["Nothing: all channels are served, no limit was topped up.", "无：所有渠道正常服务，没有临时调高的限额。"], "emergency.takeBack": ["Take back", "撤销"], "emergency.andMore": ["and {n} more", "另有 {n} 项"],
  "emergency.blocked": ["{code} is blocked: everything from it is refused", "{code} 已封禁：其所有请求均被拒绝"], "emergency.topped": ["{who}: {limit} has {add} more until {until}", "{who}：{limit} 增加 {add}，至 {until}"], "emergency.everybody": ["everything together", "全局"],
  "emergency.whom": ["What it is about", "对象"], "emergency.channel": ["A channel", "渠道"], "emergency.model": ["A model", "模型"], "emergency.all": ["Everything", "全局"],
  "emergency.block": ["Block", "封禁"], "emergency.blockSure": ["Refuse everything from {code}?", "拒绝来自 {code} 的所有请求？"], "emergency.ending": ["also end the answers that it is being given", "同时结束正在输出的回答"], "emergency.unblock": ["Unblock", "解封"], "emergency.isBlocked": ["blocked", "已封禁"],
  "emergency.end": ["End its streams", "结束其流"], "emergency.endSure": ["Every answer that {code} is being given ends now. This cannot be undone; it is charged what was produced.", "正在向 {code} 输出的回答将立即结束，无法撤销；按已产生的部分计费。"],
  "emergency.endAll": ["End all streams", "结束所有流"], "emergency.endAllSure": ["Every answer to anybody ends now. This cannot be undone.", "所有正在输出的回答将立即结束，无法撤销。"],
  "emergency.limits": ["Limits", "限额"], "emergency.reset": ["Reset", "清零"], "emergency.resetSure": ["What was used of {limit} is forgotten. This cannot be undone; usage and costs stay as they are booked.", "{limit} 的已用量将清零，无法撤销；已记账的用量与费用不变。"],
  "emergency.topUp": ["Top up …", "临时调高…"], "emergency.more": ["More of it", "增加"], "emergency.for": ["For", "时长"], "emergency.add": ["Top up", "调高"], "emergency.noLimits": ["There are no limits here.", "此处没有限额。"],
  "emergency.maintenance": ["Maintenance", "维护模式"], "emergency.maintenanceText": ["Every new request gets 503 with your message; running answers end by themselves.", "新请求返回 503 与您的说明，进行中的回答自然结束。"], "emergency.message": ["Message to callers", "给调用方的说明"], "emergency.retryAfter": ["Come again after", "建议重试间隔"], "emergency.endingAll": ["also end all answers that are running", "同时结束所有进行中的回答"],
  "emergency.maintenanceSure": ["Refuse all new requests?", "拒绝所有新请求？"], "emergency.on": ["Begin maintenance", "开始维护"], "emergency.off": ["End maintenance", "结束维护"],
  "emergency.isOn": ["Maintenance: all requests are refused", "维护中：所有请求均被拒绝"], "emergency.told": ["Callers are told “{message}” and to come again in {time}.", "调用方会收到“{message}”，并被告知 {time} 后重试。"],
} as const satisfies Texts;
