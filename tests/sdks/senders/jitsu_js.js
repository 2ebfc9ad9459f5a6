import "./browser_common.js";
import { jitsuAnalytics } from "@jitsu/js";

const { door, key } = window.given;
const jitsu = jitsuAnalytics({ host: door, writeKey: `shop:${key}` });
window.thanked = 0;
const counted = async (answer) => (window.thanked += (await answer) ? 1 : 0);
window.calls = {
  identify: (m) => counted(jitsu.identify(m.userId, m.traits)),
  track: (m) => counted(jitsu.track(m.event, m.properties)),
  page: (m) => counted(jitsu.page({ name: m.name, category: m.category, ...m.properties })),
  group: (m) => counted(jitsu.group(m.groupId, m.traits)),
};
