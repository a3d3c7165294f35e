// Signs tokens, as an identity provider does.

import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

export class Issuer {
  #keys = crypto.generateKeyPairSync("rsa", { modulusLength: 2048 });
  #folder = fs.mkdtempSync(path.join(os.tmpdir(), "signal-keys-"));
  /** Those that pages have fetched. */
  tokens = [];

  /** `lifetime`: how many seconds a token lives. */
  constructor(lifetime = 600) {
    this.lifetime = lifetime;
  }

  /** With these the daemon believes the tokens. */
  options() {
    const file = path.join(this.#folder, "jwks.json");
    const key = { ...this.#keys.publicKey.export({ format: "jwk" }), kid: "one", alg: "RS256", use: "sig" };
    fs.writeFileSync(file, JSON.stringify({ keys: [key] }));
    return ["--auth", "jwt", "--jwks", file, "--jwt-audience", "signal"];
  }

  sign(user, lifetime) {
    const part = (object) => Buffer.from(JSON.stringify(object)).toString("base64url");
    const claims = { sub: user, aud: "signal", exp: Math.floor(Date.now() / 1000) + lifetime };
    const signed = `${part({ alg: "RS256", typ: "JWT", kid: "one" })}.${part(claims)}`;
    return `${signed}.${crypto.sign("sha256", Buffer.from(signed), this.#keys.privateKey).toString("base64url")}`;
  }

  /** The token for a page. */
  fetched(user) {
    this.tokens.push(this.sign(user, this.lifetime));
    return this.tokens.at(-1);
  }

  stop() {
    fs.rmSync(this.#folder, { recursive: true });
  }
}
