import "./browser_common.js";
import { RudderAnalytics } from "@rudderstack/analytics-js/bundled";

const { door, key, beacon } = window.given;
const analytics = new RudderAnalytics();
analytics.load(key, door, { configUrl: door, useBeacon: Boolean(beacon) });
window.started = new Promise((done) => analytics.ready(() => done(true)));
const at_ = (at) => (at ? { originalTimestamp: at.toISOString() } : undefined);
window.calls = {
  identify: (m, at) => analytics.identify(m.userId, m.traits, at_(at)),
  track: (m, at) => analytics.track(m.event, m.properties, at_(at)),
  page: (m, at) => analytics.page(m.category, m.name, m.properties, at_(at)),
  group: (m, at) => analytics.group(m.groupId, m.traits, at_(at)),
  alias: (m, at) => analytics.alias(m.userId, m.previousId, at_(at)),
};
