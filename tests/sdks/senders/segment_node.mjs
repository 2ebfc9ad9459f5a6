// @segment/analytics-node as it comes, but for the host.
import { DOOR, KEY, run, sdk } from "./node_common.mjs";

const { Analytics } = sdk("@segment/analytics-node");
const analytics = new Analytics({ writeKey: KEY, host: DOOR, flushAt: 5 });
analytics.on("error", (error) => console.error(error));
await run((call, message) => analytics[call](message), () => analytics.closeAndFlush({ timeout: 120_000 }));
