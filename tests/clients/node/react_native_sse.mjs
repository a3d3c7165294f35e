// The package as the bundler of React Native gives it. Its main file mixes two kinds of modules, which Node.js may refuse.

import fs from "node:fs";

const code = fs.readFileSync(new URL("node_modules/react-native-sse/src/EventSource.js", import.meta.url), "utf8");
const { default: EventSource } = await import(`data:text/javascript,${encodeURIComponent(code)}`);

export default EventSource;
