// What React Native has and Node.js has not, for the snippets of docs/clients.md: its XMLHttpRequest, as far as libraries of event
// streams use it, and a way to load a snippet.

import { execFileSync } from "node:child_process";
import http from "node:http";
import { fileURLToPath } from "node:url";

/** As in React Native: after an error the status stays, and the text is that of the error. */
export class XMLHttpRequest {
  static UNSENT = 0;
  static OPENED = 1;
  static HEADERS_RECEIVED = 2;
  static LOADING = 3;
  static DONE = 4;

  readyState = 0;
  status = 0;
  responseText = "";
  #headers = {};
  #over = false;

  open(method, url) {
    Object.assign(this, { method, url, readyState: 1 });
  }

  setRequestHeader(name, value) {
    this.#headers[name] = value;
  }

  send() {
    const { method, url } = this;
    this.request = http.request(url, { method, headers: this.#headers, agent: false }, (response) => {
      this.status = response.statusCode;
      this.#become(2);
      response.setEncoding("utf8");
      response.on("data", (text) => {
        this.responseText += text;
        this.#become(3);
      });
      response.on("end", () => this.#become(4));
      response.on("error", (error) => this.#fail(error));
    });
    this.request.on("error", (error) => this.#fail(error));
    this.request.end();
  }

  abort() {
    const runs = this.readyState !== 0 && this.readyState !== 4;
    this.status = 0;
    this.responseText = "";
    if (runs) this.#become(4);
    this.readyState = 0;
    this.#over = true;
    this.request?.destroy();
  }

  #become(state) {
    if (this.#over) return;
    this.readyState = state;
    this.onreadystatechange?.();
  }

  #fail(error) {
    if (this.#over || this.readyState === 4) return;
    this.responseText = String(error);
    this.#become(4);
    if (!this.#over) this.onerror?.();
  }
}

/** What the snippet below a heading exports. `imports` says what it gets in the place of a module. */
export async function snippet(heading, imports) {
  const file = fileURLToPath(new URL("../snippet.py", import.meta.url));
  let code = execFileSync("python3", [file, heading, "js"], { encoding: "utf8" });
  for (const name in imports) code = code.replace(`from "${name}"`, `from "${imports[name]}"`);
  return import(`data:text/javascript,${encodeURIComponent(code)}`);
}
