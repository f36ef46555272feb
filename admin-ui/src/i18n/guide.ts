// The first run: steps, sample data, the walk through the console.
import type { Texts } from ".";

export const guide = {
  "guide.steps": ["First steps", "快速开始"], "guide.provider": ["Add a provider", "添加供应商"], "guide.providerText": ["who answers, and the credential for it", "由谁应答，及其凭据"], "guide.model": ["Add a model", "添加模型"], "guide.modelText": ["the name that clients ask for", "客户端请求的名称"], "guide.channel": ["Add a channel", "添加渠道"], "guide.channelText": ["a caller with its own limits", "拥有独立限额的调用方"], "guide.request": ["Send a request", "发送请求"], "guide.requestText": ["with the header channelcode; it appears here within a second", "携带 channelcode 请求头，一秒内即可看到"],
  "guide.sample": ["Add sample data", "添加示例数据"], "guide.sampleText": ["A provider at {url} (the mock LLM of the repository), a model, a template, a channel and a rule, to look around in.", "包含位于 {url} 的供应商（仓库自带的模拟 LLM）、模型、模板、渠道与规则，便于体验。"], "guide.sampleDone": ["The sample is there: a channel sample001 with the model sample-chat.", "示例已添加：渠道 sample001 与模型 sample-chat。"],
  "tour.title": ["Tour of the console", "控制台导览"], "tour.text": ["New here? Seven short stops.", "第一次使用？只需七步。"], "tour.no": ["No, thanks", "不用了"], "tour.yes": ["Show me around", "开始"],
  "tour.overview": ["What happens now", "实时概况"], "tour.overviewText": ["Requests, tokens, latency, cost and health, second by second.", "每秒更新的请求、token、延迟、费用与健康状况。"],
  "tour.channels": ["Who calls", "调用方"], "tour.channelsText": ["Each caller is a channel with its own keys, models and limits. Templates are limits that many channels share.", "每个调用方是一个渠道，拥有独立的密钥、模型与限额；模板由多个渠道共享。"],
  "tour.models": ["Who answers", "应答方"], "tour.modelsText": ["A model has deployments at providers: weights, versions, a canary slider, experiments, prices.", "模型由供应商处的部署提供：权重、版本、灰度、实验与价格。"],
  "tour.rules": ["What decides", "决策规则"], "tour.rulesText": ["Rules deny, cap, tag or reroute. Try a request to see which rule, limit and route would decide, and why.", "规则可拒绝、限制、标记或改道。用「试一个请求」查看由哪条规则、限额与路由决定。"],
  "tour.usage": ["What was used", "用量"], "tour.usageText": ["Any range by channel and model, compared with the period before, as CSV too.", "任意时段按渠道与模型统计，可与上一周期比较，可导出 CSV。"],
  "tour.history": ["The way back", "可以回退"], "tour.historyText": ["Every change is a version with author and difference; one button brings a former one back.", "每次修改都是一个版本，含作者与差异；一键回滚。"],
  "tour.help": ["When it is urgent", "紧急情况"], "tour.helpText": ["The Emergency button at the top blocks a channel or begins maintenance at once. Enjoy your gateway.", "顶部的「应急」按钮可立即封禁渠道或进入维护。祝使用愉快。"],
} as const satisfies Texts;
