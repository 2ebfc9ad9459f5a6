import "./browser_common.js";
import { jitsuAnalytics } from "@jitsu/js";

const { door, key } = window.given;
window.thanked = 0;
const counting = async (...given) => {
  const answer = await fetch(...given);
  window.thanked += answer.ok ? 1 : 0;
  return answer;
};
const jitsu = jitsuAnalytics({ host: door, writeKey: `shop:${key}`, fetch: counting });
window.calls = {
  identify: (m) => jitsu.identify(m.userId, m.traits),
  track: (m) => jitsu.track(m.event, m.properties),
  page: (m) => jitsu.page({ name: m.name, category: m.category, ...m.properties }),
  group: (m) => jitsu.group(m.groupId, m.traits),
};
