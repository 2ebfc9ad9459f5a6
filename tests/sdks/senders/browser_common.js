// In the browser: `story(list)` sends the calls of story.json, `stream(every_ms)` numbered events until `enough`,
// while the server is killed, and resolves to how many. Each entry file puts `calls` on the window, by the SDK's own functions.
window.story = async (list) => {
  for (const { call, at, ...message } of list) await window.calls[call]?.(message, new Date(at));
};
window.stream = async (every_ms) => {
  let number = 0;
  while (!window.enough) {
    window.calls.track({ event: "Step Taken", properties: { number: number++ } });
    await new Promise((done) => setTimeout(done, every_ms));
  }
  return number;
};
