//! Runs the scripts in `tests/browser` with a real Chromium against the real executable, for what only a browser can prove.

#![expect(
    clippy::disallowed_methods,
    reason = "the environment says where the browser is, and whether it may be absent"
)]

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
};

use serde_json::json;

#[path = "it/harness/tokens.rs"]
#[expect(dead_code, unreachable_pub, reason = "the wire tests use more of it")]
mod tokens;

use tokens::{RSA, Signer, file, jwks, rsa_jwk, seconds_from_now};

#[test]
fn a_browser_gets_what_the_contract_promises() {
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(absent) => return skip(&absent),
    };
    let daemon = Daemon::start(&["--auth", "none"]);
    tools.run("browser.mjs", &[&format!("http://{}", daemon.address)]);
}

#[test]
fn what_the_readme_shows_for_pages_and_node_works_as_pasted() {
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(absent) => return skip(&absent),
    };
    let daemon = Daemon::start(&["--dev", "--stun", "stun:127.0.0.1:9"]);
    tools.run("readme.mjs", &[&format!("http://{}", daemon.address), env!("CARGO_BIN_EXE_backend-signal")]);
}

#[test]
fn two_pages_make_a_call_through_one_binary_with_tls_and_tokens_of_a_key_set() {
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(absent) => return skip(&absent),
    };
    let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let certificate = file("call-cert.pem", identity.cert.pem());
    let key = file("call-key.pem", identity.signing_key.serialize_pem());
    let keys = file("call-jwks.json", jwks(&[rsa_jwk("one", RSA)]));
    let daemon = Daemon::start(&[
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--auth",
        "jwt",
        "--jwks",
        &keys,
        "--jwt-audience",
        "signal",
        "--jwt-issuer",
        "https://id.example.org",
    ]);
    let [ana, bob] = ["ana", "bob"].map(|user| {
        let claims =
            json!({"iss": "https://id.example.org", "aud": "signal", "sub": user, "exp": seconds_from_now(600)});
        Signer::rsa().sign(&json!({"alg": "RS256", "typ": "JWT", "kid": "one"}), &claims)
    });
    tools.run("call.mjs", &[&format!("https://{}", daemon.address), &ana, &bob]);
}

#[test]
fn the_console_is_usable() {
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(absent) => return skip(&absent),
    };
    tools.run("console.mjs", &[env!("CARGO_BIN_EXE_backend-signal"), concat!(env!("CARGO_TARGET_TMPDIR"), "/console")]);
}

#[test]
fn the_recipes_do_what_their_page_says() {
    match Tools::find() {
        Ok(tools) => tools.run_in_chromium("recipes.mjs"),
        Err(absent) => skip(&absent),
    }
}

#[test]
fn the_adapters_work_with_the_libraries_that_they_are_for() {
    match Tools::find().and_then(|tools| {
        find_packages(&adapters(), &["@trystero-p2p/core", "simple-peer"])?;
        Ok(tools)
    }) {
        Ok(tools) => tools.run_in_chromium("adapters.mjs"),
        Err(absent) => skip(&absent),
    }
}

/// Three rounds; `STORM_ROUNDS` asks for more, and `STORM_SEED` repeats them.
#[test]
fn a_call_of_ten_lines_survives_every_kind_of_fault() {
    match Tools::find() {
        Ok(tools) => tools.run("storm/storm.mjs", &[env!("CARGO_BIN_EXE_backend-signal")]),
        Err(absent) => skip(&absent),
    }
}

#[test]
fn client_js_keeps_its_promises_in_chromium() {
    match Tools::find() {
        Ok(tools) => tools.run_features("chromium", &tools.chromium),
        Err(absent) => skip(&absent),
    }
}

#[test]
fn client_js_keeps_its_promises_in_firefox() {
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(absent) => return skip(&absent),
    };
    match on_path(&["firefox-esr", "firefox"]) {
        Some(firefox) => tools.run_features("firefox", &firefox),
        None => skip("there is no Firefox on the PATH"),
    }
}

/// Prints that the test was skipped, past the test harness, which hides the output of passing tests. Fails with CI=true.
fn skip(absent: &str) {
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "with CI=true the test in a browser must run: {absent}");
    let _ = std::io::stderr().write_all(format!("\nSKIPPED: the test in a real browser: {absent}\n").as_bytes());
}

/// What the test needs besides Rust.
struct Tools {
    node: PathBuf,
    chromium: PathBuf,
}

impl Tools {
    /// Runs a script to its end.
    fn run(&self, script: &str, arguments: &[&str]) {
        let output = Command::new(&self.node)
            .current_dir(folder())
            .arg(script)
            .args(arguments)
            .env("CHROMIUM", &self.chromium)
            .stdin(Stdio::null())
            .output()
            .expect("node");
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // Shown when the test fails, or on demand.
        println!("{said}{complained}");
        assert!(output.status.success(), "node {script}: {}", output.status);
        assert!(said.contains(" passed, 0 failed"), "the script has run to its end");
    }

    fn run_in_chromium(&self, script: &str) {
        let chromium = self.chromium.to_str().expect("UTF-8");
        self.run(script, &[env!("CARGO_BIN_EXE_backend-signal"), chromium]);
    }

    fn run_features(&self, name: &str, browser: &Path) {
        let browser = browser.to_str().expect("UTF-8");
        self.run("features.mjs", &[env!("CARGO_BIN_EXE_backend-signal"), name, browser]);
    }

    fn find() -> Result<Self, String> {
        let node = on_path(&["node"]).ok_or("there is no Node.js (node) on the PATH")?;
        let named = env::var_os("CHROMIUM").map(PathBuf::from);
        let chromium =
            named.or_else(|| on_path(&["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]));
        let chromium =
            chromium.filter(|file| file.is_file()).ok_or("there is no Chromium on the PATH or in $CHROMIUM")?;
        find_packages(&folder(), &["axe-core", "eventsource", "playwright-core", "puppeteer-core"])?;
        Ok(Self { node, chromium })
    }
}

/// Brings the packages of a folder unless all are there, in the versions and with the checksums of its lock file.
fn find_packages(folder: &Path, packages: &[&str]) -> Result<(), String> {
    let is_there = |package: &&str| folder.join(format!("node_modules/{package}/package.json")).is_file();
    if packages.iter().all(is_there) {
        return Ok(());
    }
    let npm = on_path(&["npm"]).ok_or("there is no npm on the PATH")?;
    let output = Command::new(npm)
        .current_dir(folder)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("npm: {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("`npm ci` in {} failed: {complaint}", folder.display())) }
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let files = |name: &&str| env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    names.iter().find_map(files)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

fn adapters() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/adapters")
}

/// The daemon in a process of its own, which ends with the test.
struct Daemon {
    child: Child,
    address: String,
    /// Kept open: a daemon whose log has no reader would still serve, but this one should have one.
    _log: BufReader<ChildStderr>,
}

impl Daemon {
    fn start(options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_backend-signal"))
            .args(["--host", "127.0.0.1"])
            .args(options)
            .env_clear()
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("listening on ") {
            line.clear();
            let length = log.read_line(&mut line).expect("UTF-8");
            assert!(length > 0, "the daemon has ended before it listened");
        }
        let address = line.rsplit("listening on ").next().unwrap_or_default().trim().to_owned();
        Self { child, address, _log: log }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
