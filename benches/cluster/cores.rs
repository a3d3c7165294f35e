//! Where the servers run. Here, wherever the scheduler puts them: a send to another node takes three processes, and pinning them
//! would measure one processor.

use std::{
    io,
    process::{Child, Command},
};

/// Starts a server.
pub fn start(server: &mut Command) -> io::Result<Child> {
    server.spawn()
}
