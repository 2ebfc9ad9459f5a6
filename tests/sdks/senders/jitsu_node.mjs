// @jitsu/js on a server. It sends each event once and does not say whether it arrived: the fetch given to it counts.
import { DOOR, KEY, run, sdk } from "./node_common.mjs";

const { jitsuAnalytics } = sdk("@jitsu/js");
let thanked = 0;
const counting = async (...given) => {
  const answer = await fetch(...given);
  thanked += answer.ok ? 1 : 0;
  return answer;
};
console.error = () => {};
const jitsu = jitsuAnalytics({ host: DOOR, writeKey: `shop:${KEY}`, s2s: true, fetch: counting });
const calls = {
  identify: (m) => jitsu.identify(m.userId, m.traits),
  track: (m) => jitsu.track(m.event, m.properties),
  page: (m) => jitsu.page({ name: m.name, category: m.category, ...m.properties }),
  group: (m) => jitsu.group(m.groupId, m.traits),
};
await run((call, message) => calls[call]?.(message), () => console.log(thanked));
