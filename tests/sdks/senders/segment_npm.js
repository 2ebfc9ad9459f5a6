import "./browser_common.js";
import "./segment_calls.js";
import { AnalyticsBrowser } from "@segment/analytics-next";

const { door, key, batching } = window.given;
const strategy = { deliveryStrategy: { strategy: "batching", config: { size: 4, timeout: 300 } } };
const options = batching ? { integrations: { "Segment.io": strategy } } : {};
const analytics = AnalyticsBrowser.load({ writeKey: key, cdnURL: door }, options);
window.calls = window.segmentCalls(() => analytics);
