import "./browser_common.js";
import "./segment_calls.js";
import { AnalyticsBrowser } from "@segment/analytics-next";

const { door, key } = window.given;
const analytics = AnalyticsBrowser.load({ writeKey: key, cdnURL: door });
window.calls = window.segmentCalls(() => analytics);
