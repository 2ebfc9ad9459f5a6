// @rudderstack/rudder-sdk-node, with the retries that outlive a restart: 3, its default, take two seconds.
import { DOOR, KEY, run, sdk } from "./node_common.mjs";

const Analytics = sdk("@rudderstack/rudder-sdk-node");
const analytics = new Analytics(KEY, { dataPlaneUrl: DOOR, retryCount: 10, flushInterval: 300, logLevel: "none" });
const waiting = [];
const send = (call, message) => {
  waiting.push(new Promise((done, failed) => analytics[call](message, (error) => (error ? failed(error) : done()))));
};
await run(send, async () => {
  while (analytics.queue.length) await analytics.flush();
  await Promise.all(waiting);
});
