// What each Node sender shares: the SDKs stand in the cache that SDKS names. Without STOP it sends story.json once; else
// numbered events until a file of that name exists, while the server is killed and started again: it prints how many.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

export const { SDKS, DOOR, KEY, STOP, EVERY_MS } = process.env;
export const sdk = createRequire(`${SDKS}/package.json`);
const STORY = JSON.parse(readFileSync(new URL("../story.json", import.meta.url), "utf8"));

// `send(call, message)`: one call of the SDK, with fields named as in its API. `end()`: until everything is delivered.
export async function run(send, end) {
  let number = 0;
  if (!STOP) {
    for (const { call, at, ...message } of STORY) await send(call, { ...message, timestamp: new Date(at) });
  } else {
    while (!existsSync(STOP)) {
      await send("track", { userId: "u-1", event: "Step Taken", properties: { number: number++ } });
      await new Promise((done) => setTimeout(done, Number(EVERY_MS)));
    }
  }
  await end();
  console.log(number);
}
