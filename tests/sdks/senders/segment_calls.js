// analytics-next's functions, of the npm package and of the snippet.
window.segmentCalls = (analytics) => ({
  identify: (m, at) => analytics().identify(m.userId, m.traits, { timestamp: at }),
  track: (m, at) => analytics().track(m.event, m.properties, at && { timestamp: at }),
  page: (m, at) => analytics().page(m.category, m.name, m.properties, { timestamp: at }),
  screen: (m, at) => analytics().screen(m.category, m.name, m.properties, { timestamp: at }),
  group: (m, at) => analytics().group(m.groupId, m.traits, { timestamp: at }),
  alias: (m, at) => analytics().alias(m.userId, m.previousId, { timestamp: at }),
});
