//! A real nginx in front of the daemon.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use super::{free_address, within};

/// A running nginx. It has one process.
pub struct Nginx {
    pub address: SocketAddr,
    child: Child,
}

impl Nginx {
    /// Starts nginx. `http` and `server` are lines for its blocks of these names. In both, `{folder}` is an empty folder
    /// for this `name`. `None`, with a line on standard error, if nginx is not installed.
    pub async fn start(name: &str, http: &str, server: &str) -> Option<Self> {
        Self::with(name, &format!("{http}\n server {{ listen {{address}}; {server} }}")).await
    }

    /// The same with a whole `http` block, in which `{address}` is where the tests expect it to listen.
    pub async fn with(name: &str, http: &str) -> Option<Self> {
        if Command::new("nginx").arg("-v").output().is_err() {
            #[expect(clippy::disallowed_methods, reason = "CI must have the tools")]
            let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!must, "with CI=true this test must run: nginx is not installed");
            // Not `eprint!`: the test harness hides its output.
            let _ = std::io::stderr().write_all(b"\nSKIPPED: a test behind nginx: nginx is not installed\n");
            return None;
        }
        let folder = Self::folder(name);
        // nginx must not serve what an earlier run has cached.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("writable");
        within(async {
            loop {
                // nginx cannot choose a free port itself. Another program may take this one first; then this tries again.
                let free = free_address();
                let mut nginx = Self { address: free, child: Self::spawn(&folder, free, http) };
                while nginx.child.try_wait().expect("a child").is_none() {
                    // nginx writes it once it listens at all of its addresses.
                    if Path::new(&format!("{folder}/pid")).exists() {
                        return Some(nginx);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        })
        .await
    }

    /// The folder of a `name`.
    pub fn folder(name: &str) -> String {
        format!("{}/nginx-{name}", env!("CARGO_TARGET_TMPDIR"))
    }

    fn spawn(folder: &str, address: SocketAddr, http: &str) -> Child {
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|kind| format!("{kind}_temp_path {folder}/{kind};")).join(" ");
        let http = http.replace("{folder}", folder).replace("{address}", &address.to_string());
        let configuration = format!(
            "daemon off; master_process off; pid {folder}/pid; error_log stderr crit; events {{}}\n\
             http {{ access_log off; {temporary} {http} }}\n"
        );
        let file = format!("{folder}/nginx.conf");
        std::fs::write(&file, configuration).expect("writable");
        Command::new("nginx").args(["-p", folder, "-e", "stderr", "-c", &file]).spawn().expect("nginx")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
