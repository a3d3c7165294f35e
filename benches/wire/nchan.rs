//! nginx with nchan, which the daemon's idle streams are compared with where it is installed.

use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use crate::servers::Running;

/// A running nginx with one worker, in a folder of its own.
pub struct Nchan {
    pub server: Running,
    folder: PathBuf,
}

impl Nchan {
    /// None where nginx or its module is not installed.
    pub fn start() -> io::Result<Option<Self>> {
        let Some(module) = MODULES.iter().find(|module| Path::new(module).exists()) else { return Ok(None) };
        let Some(nginx) = PROGRAMS.iter().find(|program| Path::new(program).exists()) else { return Ok(None) };
        // Nobody else takes this port in the moment until nginx listens.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let folder = std::env::temp_dir().join(format!("backend-signal-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let configuration = folder.join("nginx.conf");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|kind| format!("{kind}_temp_path {};\n", folder.join(kind).display())).concat();
        let text = CONFIGURATION
            .replace("MODULE", module)
            .replace("PID", &folder.join("pid").display().to_string())
            .replace("TEMPORARY", &temporary)
            .replace("ADDRESS", &address.to_string());
        fs::write(&configuration, text)?;
        let mut command = Command::new(nginx);
        command.arg("-e").arg("stderr").arg("-p").arg(&folder).arg("-c").arg(&configuration);
        let mut nchan = Self { server: Running::adopt(&mut command, address)?, folder };
        nchan.server.until(|_| std::net::TcpStream::connect(address).ok())?;
        Ok(Some(nchan))
    }

    /// Where a device's stream is.
    pub fn path(device: u32) -> String {
        format!("/subscribe/u{device}")
    }
}

impl Drop for Nchan {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where Debian and Alpine, and Fedora put it.
const MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"];
const PROGRAMS: [&str; 2] = ["/usr/sbin/nginx", "/usr/bin/nginx"];

/// One process, so that its CPU is that of the worker.
const CONFIGURATION: &str = "
load_module MODULE;
daemon off;
master_process off;
worker_processes 1;
pid PID;
error_log stderr error;
events { worker_connections 19500; }
http {
    access_log off;
    TEMPORARY
    server {
        listen ADDRESS backlog=4096;
        location ~ ^/subscribe/(.+)$ {
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_eventsource_ping_interval 15;
        }
    }
}
";
