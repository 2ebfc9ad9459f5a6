// @jitsu/js on a server. It sends each event once; so this sender prints first of how many it was told that they arrived.
import { DOOR, KEY, run, sdk } from "./node_common.mjs";

const { jitsuAnalytics } = sdk("@jitsu/js");
const jitsu = jitsuAnalytics({ host: DOOR, writeKey: `shop:${KEY}`, s2s: true, errorPolicy: "log" });
console.error = () => {};
let thanked = 0;
const calls = {
  identify: (m) => jitsu.identify(m.userId, m.traits),
  track: (m) => jitsu.track(m.event, m.properties),
  page: (m) => jitsu.page({ name: m.name, category: m.category, ...m.properties }),
  group: (m) => jitsu.group(m.groupId, m.traits),
};
await run(async (call, message) => (thanked += (await calls[call]?.(message)) ? 1 : 0), () => console.log(thanked));
